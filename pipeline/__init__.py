"""Chimera."""
