"""Avro schemas: fields, versions, compatibility, and the framing of values."""
