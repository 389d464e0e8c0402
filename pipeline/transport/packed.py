"""Records of Kafka's batches as they were fetched: compressed, and read by column when they are needed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Spans
from pipeline.transport.batch_format import MOST_UNPACKED, BatchHead, DamagedBatchError, read_records
from pipeline.transport.records import LogPart, RecordColumns


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Records of one batch, as they were fetched; each offset from the first to the last has one."""

    head: BatchHead
    data: memoryview
    """All records of the batch, compressed."""
    unpacked_bytes: int
    """Bytes of all records, decompressed; a bound if blocks of LZ4 aren't full."""
    most: int
    """Most bytes that they may have."""
    first: int
    """Number of the first of the batch's records that is a record of this part."""
    stop: int
    sizes: NDArray[np.uint32] | None = None
    """Bytes of each record, if they were measured; else all have the same."""

    @classmethod
    def of(cls, batch: memoryview, offset: int = 0, most: int = MOST_UNPACKED) -> "PackedBatch":
        """Hold the records of a dense batch from an offset on.

        Args:
            batch: the whole batch, a part of a fetch; it is copied, so that the fetch doesn't stay in memory with it.
            offset: offset of the first record that is held.
            most: most bytes that the records may have when they are decompressed.

        Raises:
            DamagedBatchError: they can't be decompressed, or are more. Some damage shows only when they are read.
        """
        head = BatchHead.of(batch)
        data = memoryview(bytes(head.records_of(batch)))
        first = min(max(offset - head.base_offset, 0), head.records)
        return cls(head, data, head.unpacked_size(data, most), most, first, head.records)

    def __len__(self) -> int:
        return self.stop - self.first

    @property
    def first_offset(self) -> int:
        """Offset of the first record."""
        return self.head.base_offset + self.first

    @property
    def last_offset(self) -> int:
        """Offset of the last record."""
        return self.head.base_offset + self.stop - 1

    @property
    def newest(self) -> int:
        """Largest timestamp of the batch, ms."""
        return self.head.max_timestamp

    @property
    def size(self) -> int:
        """Bytes that the records take when they are read, with what Kafka adds to each if they weren't measured."""
        if self.sizes is not None:
            return int(self.sizes.sum())
        return self.unpacked_bytes * len(self) // self.head.records

    @property
    def held_bytes(self) -> int:
        """Bytes of the compressed records, and of their sizes."""
        measured = 0 if self.sizes is None else self.sizes.nbytes
        return len(self.data) * len(self) // self.head.records + measured

    def sliced(self, first: int, stop: int) -> "PackedBatch":
        """Return some of the records, by their numbers."""
        sizes = None if self.sizes is None else self.sizes[first:stop]
        return replace(self, first=self.first + first, stop=self.first + min(stop, len(self)), sizes=sizes)

    def rows_below(self, offset: int) -> int:
        """Count the records below an offset."""
        return min(max(offset - self.first_offset, 0), len(self))

    def rows_within(self, max_bytes: int) -> int:
        """Count the first records that fit into this size; as if all had the same if they weren't measured."""
        if self.sizes is not None:
            return int(np.searchsorted(np.cumsum(self.sizes, dtype=np.int64), max_bytes, side="right"))
        return min(len(self), len(self) * max_bytes // max(1, self.size))

    def columns(self) -> RecordColumns:
        """Read the records; see `read`."""
        return _read([self])


def measured(part: LogPart, max_bytes: int) -> LogPart:
    """Measure the records of a part that is larger than this; it stays compressed."""
    if not isinstance(part, PackedBatch) or part.size <= max_bytes:
        return part
    try:
        return replace(part, sizes=part.columns().sizes.astype(np.uint32))
    except DamagedBatchError:
        return part  # whoever needs its records reports that


def read(parts: Sequence[LogPart]) -> RecordColumns:
    """Read the records of consecutive parts by column.

    Raises:
        DamagedBatchError: they aren't records, although the checksum of their batch is right; the message names it.
    """
    packed = [part for part in parts if isinstance(part, PackedBatch)]
    if packed and len(packed) == len(parts):
        return _read(packed)
    return concatenated([part.columns() for part in parts])


def read_whole(parts: Sequence[LogPart]) -> tuple[RecordColumns, DamagedBatchError | None]:
    """Read the records of consecutive parts up to the first that can't be read, and return its damage too."""
    damage = None
    while True:
        try:
            return read(parts), damage
        except DamagedBatchError as error:
            damage = error
            parts = [part for part in parts if part.last_offset < error.offsets.start]


def read_sparse(batch: memoryview, offset: int, most: int = MOST_UNPACKED) -> RecordColumns:
    """Read the records of a batch from an offset on; offsets may have none. See `PackedBatch.of`.

    Raises:
        DamagedBatchError: as `read`.
    """
    head = BatchHead.of(batch)
    columns = read_records([head], [head.records_of(batch)], [most])
    return columns[columns.rows_below(offset) :]


def concatenated(parts: Sequence[RecordColumns]) -> RecordColumns:
    """Return the records of consecutive parts as one."""
    if len(parts) == 1:
        return parts[0]
    nothing = np.zeros(0, np.int64)
    return RecordColumns(
        np.concatenate([nothing, *(part.offsets for part in parts)]),
        np.concatenate([nothing, *(part.timestamps for part in parts)]),
        Spans.concatenate([part.keys for part in parts]),
        Spans.concatenate([part.values for part in parts]),
        Spans.concatenate([part.headers for part in parts]),
    )


def _read(batches: Sequence[PackedBatch]) -> RecordColumns:
    heads, data = [batch.head for batch in batches], [batch.data for batch in batches]
    sizes = [batch.unpacked_bytes for batch in batches]
    columns = read_records(heads, data, [batch.most for batch in batches], sizes)
    if all(len(batch) == batch.head.records for batch in batches):
        return columns
    ends = np.cumsum([batch.head.records for batch in batches])
    rows = [
        np.arange(end - batch.head.records + batch.first, end - batch.head.records + batch.stop)
        for batch, end in zip(batches, ends.tolist(), strict=True)
    ]
    wanted = np.concatenate(rows)
    return RecordColumns(
        columns.offsets[wanted],
        columns.timestamps[wanted],
        columns.keys[wanted],
        columns.values[wanted],
        columns.headers[wanted],
    )
