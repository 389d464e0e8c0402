"""Reads the frame headers of many records at once."""

import numpy as np

from pipeline.columns import Mask, Spans
from pipeline.schema.framing import (
    CONFLUENT_HEADER_BYTES,
    CONFLUENT_MAGIC,
    SINGLE_OBJECT_HEADER_BYTES,
    SINGLE_OBJECT_MARKER,
)


class Frames:
    """Frame headers of many records."""

    def __init__(self, records: Spans) -> None:
        buffer, starts, lengths = records.buffer, records.starts, records.lengths
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
        """True for each record with a single-object or Confluent frame."""
        return self._single_object | self._confluent

    @property
    def single_object(self) -> Mask:
        """True for each record with a single-object frame."""
        return self._single_object

    @property
    def schema_ids(self) -> list[int]:
        """Distinct schema ids of the Confluent-framed records."""
        ids: list[int] = np.unique(self._schema_ids[self._confluent]).tolist()
        return ids

    def with_fingerprint(self, fingerprint: bytes) -> Mask:
        """True for each single-object record with this fingerprint."""
        same: Mask = self._fingerprints == int.from_bytes(fingerprint, "little")
        return self._single_object & same

    def with_schema_id(self, schema_id: int) -> Mask:
        """True for each Confluent-framed record with this schema id."""
        same: Mask = self._schema_ids == schema_id
        return self._confluent & same
