"""Frames an Avro value for a Kafka record: as Avro single-object encoding, or as Confluent does."""

import re

SINGLE_OBJECT_MARKER = b"\xc3\x01"
SINGLE_OBJECT_HEADER_BYTES = 10  # marker, 8-byte fingerprint
CONFLUENT_MAGIC = b"\x00"
CONFLUENT_HEADER_BYTES = 5  # magic, 4-byte schema id, big-endian
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSON = re.compile(rb"""(?:\xef\xbb\xbf)?[ \t\r\n]*(?:\{[ \t\r\n]*["}]|\[[ \t\r\n]*[\[{"\]0-9tfn-]|"\{)""")
_AVRO_FILE = b"Obj\x01"


def guessed_form(value: bytes) -> str:
    """Name the form of a value without a frame by its first bytes; empty if it is none of the common ones."""
    if _JSON.match(value):
        return "JSON"
    return "an Avro file" if value.startswith(_AVRO_FILE) else ""


def frame_single_object(fingerprint: bytes, body: bytes) -> bytes:
    """Frame an Avro body with its schema's 8-byte little-endian fingerprint; needs no registry."""
    return SINGLE_OBJECT_MARKER + fingerprint + body


def frame_confluent(schema_id: int, body: bytes) -> bytes:
    """Frame an Avro body with its schema's id in the schema registry."""
    return CONFLUENT_MAGIC + schema_id.to_bytes(4, "big") + body


def schema_name(value: bytes) -> str:
    """Name of the writer schema in a frame: `fingerprint:<hex>` or `id:<n>`; empty for a value without a frame."""
    if value.startswith(SINGLE_OBJECT_MARKER) and len(value) >= SINGLE_OBJECT_HEADER_BYTES:
        return f"fingerprint:{value[len(SINGLE_OBJECT_MARKER) : SINGLE_OBJECT_HEADER_BYTES].hex()}"
    if value.startswith(CONFLUENT_MAGIC) and len(value) >= CONFLUENT_HEADER_BYTES:
        return f"id:{int.from_bytes(value[len(CONFLUENT_MAGIC) : CONFLUENT_HEADER_BYTES], 'big')}"
    return ""
