"""Clients, logins, topics and the schema registry."""
