"""Helpers that several test modules share: servers, processes, events and reference implementations."""
