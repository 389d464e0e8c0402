"""How an Avro value is framed in a Kafka record: Avro single-object encoding, or Confluent's."""

import numpy as np

from pipeline.columns import Mask
from pipeline.decode.cursor import Buffer, Spans

SINGLE_OBJECT_MARKER = b"\xc3\x01"
SINGLE_OBJECT_HEADER_BYTES = 10  # marker, 8-byte fingerprint
CONFLUENT_MAGIC = b"\x00"
CONFLUENT_HEADER_BYTES = 5  # magic, 4-byte schema id, big-endian


def frame_single_object(fingerprint: bytes, body: bytes) -> bytes:
    """Frame an Avro body with its schema's 8-byte little-endian fingerprint; needs no registry."""
    return SINGLE_OBJECT_MARKER + fingerprint + body


def frame_confluent(schema_id: int, body: bytes) -> bytes:
    """Frame an Avro body with the id that a schema registry gave to its schema."""
    return CONFLUENT_MAGIC + schema_id.to_bytes(4, "big") + body


def schema_name(value: bytes) -> str:
    """The writer's schema as a frame names it: `fingerprint:<hex>`, `id:<n>`, or nothing when there is no frame."""
    if value.startswith(SINGLE_OBJECT_MARKER) and len(value) >= SINGLE_OBJECT_HEADER_BYTES:
        return f"fingerprint:{value[len(SINGLE_OBJECT_MARKER) : SINGLE_OBJECT_HEADER_BYTES].hex()}"
    if value.startswith(CONFLUENT_MAGIC) and len(value) >= CONFLUENT_HEADER_BYTES:
        return f"id:{int.from_bytes(value[len(CONFLUENT_MAGIC) : CONFLUENT_HEADER_BYTES], 'big')}"
    return ""


class Frames:
    """The headers of many records, read at once."""

    def __init__(self, buffer: Buffer, records: Spans) -> None:
        starts, lengths = records.starts, records.lengths
        marker = int.from_bytes(SINGLE_OBJECT_MARKER, "little")
        self._single_object: Mask = (buffer.gather(starts, 2, "<u2") == marker) & (
            lengths >= SINGLE_OBJECT_HEADER_BYTES
        )
        self._fingerprints = buffer.gather(starts + len(SINGLE_OBJECT_MARKER), 8, "<u8")
        self._confluent: Mask = (buffer.gather(starts, 1, "u1") == CONFLUENT_MAGIC[0]) & (
            lengths >= CONFLUENT_HEADER_BYTES
        )
        self._schema_ids = buffer.gather(starts + len(CONFLUENT_MAGIC), 4, ">u4")

    @property
    def framed(self) -> Mask:
        """The records that are framed in either way."""
        return self._single_object | self._confluent

    @property
    def schema_ids(self) -> list[int]:
        """Every schema id that a Confluent-framed record names, once."""
        ids: list[int] = np.unique(self._schema_ids[self._confluent]).tolist()
        return ids

    def with_fingerprint(self, fingerprint: bytes) -> Mask:
        """The single-object records of that schema."""
        same: Mask = self._fingerprints == int.from_bytes(fingerprint, "little")
        return self._single_object & same

    def with_schema_id(self, schema_id: int) -> Mask:
        """The Confluent-framed records of that schema."""
        same: Mask = self._schema_ids == schema_id
        return self._confluent & same
