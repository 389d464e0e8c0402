"""Frame headers of many records, read at once."""

import numpy as np

from pipeline.columns import Mask
from pipeline.decode.cursor import Spans, ValueBuffer
from pipeline.schema.framing import (
    CONFLUENT_HEADER_BYTES,
    CONFLUENT_MAGIC,
    SINGLE_OBJECT_HEADER_BYTES,
    SINGLE_OBJECT_MARKER,
)


class Frames:
    """The headers of many records, read at once."""

    def __init__(self, buffer: ValueBuffer, records: Spans) -> None:
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
