"""Avro schemas: fields and versions, compatibility, writer schemas and their resolution, and the framing of values."""
