"""Hostile records, hostile schemas and a corpus of personal data, run through a real worker."""
