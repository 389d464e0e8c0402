"""Frames an Avro value for a Kafka record: as Avro single-object encoding, or as Confluent does."""

import codecs
import json
import re

SINGLE_OBJECT_MARKER = b"\xc3\x01"
SINGLE_OBJECT_HEADER_BYTES = 10  # marker, 8-byte fingerprint
CONFLUENT_MAGIC = b"\x00"
CONFLUENT_HEADER_BYTES = 5  # magic, 4-byte schema id, big-endian
_JSON = re.compile(r"""[ \t\r\n]*(?:\{[ \t\r\n]*["}]|\[[ \t\r\n]*[\[{"\]0-9tfn-]|"[ \t\r\n]*[\[{])""")
_TEXT = re.compile(r"[^\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd]{4,}")
_AVRO_FILE = b"Obj\x01"
_SHOWN = 256  # bytes that tell the form of a value; a part of all encodings' widths


def guessed_form(value: bytes) -> str:
    """Name the form of a value without a frame by its first bytes; empty if it is none of the common ones."""
    if value.startswith(_AVRO_FILE):
        return "an Avro file"
    encoding = json.detect_encoding(value)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(value[:_SHOWN])
    if encoding.startswith("utf-8"):
        return "JSON" if _JSON.match(text) else "text" if _TEXT.fullmatch(text) else ""
    return f"JSON in {encoding[:6].upper()}" if _JSON.match(text) else ""


def as_text(value: bytes) -> str:
    """Decode a value whose form is JSON or text, in UTF-8, UTF-16 or UTF-32."""
    return value.decode(json.detect_encoding(value), "replace")


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
