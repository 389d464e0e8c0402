"""Chunks of a replay: records of one partition that are decoded, looked up and inserted in one go."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.catalog import BatchPolicy
from pipeline.columns import Ints, Spans
from pipeline.transport.records import RecordColumns
from pipeline.transport.stretches import LogStretch

_MOST_GROWING = 2  # limit on the size of all unfinished chunks together, in whole chunks
_FEW_ROWS = 1024  # stretches of fewer rows are decoded together: each slice has its own cost
_SMALL_PART = 4  # values that are less than this part of their buffer are copied


@dataclass(slots=True)
class Chunk:
    """Records of one partition by ascending offset, gathered from stretches of its log."""

    partition: int
    passed: int = 0
    """Number of offsets that its stretches cover, with a record or without."""
    size: int = 0
    """Bytes of the values."""
    rows: int = 0
    """Number of records."""
    _values: list[Spans] = field(default_factory=list)
    _offsets: list[Ints] = field(default_factory=list)
    _timestamps: list[Ints | None] = field(default_factory=list)

    def __len__(self) -> int:
        return self.rows

    @property
    def offsets(self) -> Ints:
        """Offset of each record."""
        return np.concatenate(self._offsets)

    def slices(self) -> list[tuple[Spans, Ints | None]]:
        """Return values, and Kafka's timestamps in ms, of some records after the other.

        Timestamps are None if the records come from a file that has none.
        """
        if self.rows >= _FEW_ROWS * len(self._values):
            return list(zip(self._values, self._timestamps, strict=True))
        times = [each for each in self._timestamps if each is not None]
        whole = np.concatenate(times) if len(times) == len(self._timestamps) else None
        return [(Spans.concatenate(self._values), whole)]

    def add(self, stretch: LogStretch) -> None:
        """Add the records of the next stretch."""
        self.passed += stretch.next_offset - stretch.first
        if not stretch.records:
            return
        offsets, timestamps, values = _columns(stretch.records)
        size = int(values.lengths.clip(0).sum())
        if size * _SMALL_PART < len(values.buffer.data):  # all that was fetched with them would stay in memory
            offsets, values = offsets.copy(), values.copied()
            timestamps = None if timestamps is None else timestamps.copy()
        self._offsets.append(offsets)
        self._timestamps.append(timestamps)
        self._values.append(values)
        self.rows += len(values)
        self.size += size


def _columns(records: Sequence[Any]) -> tuple[Ints, Ints | None, Spans]:
    """Return offsets, timestamps and values; timestamps are None if the records have none."""
    if isinstance(records, RecordColumns):
        return records.offsets, records.timestamps, records.values
    offsets = np.array([record.offset for record in records], np.int64)
    times = [record.timestamp for record in records]
    timestamps = None if None in times else np.array(times, np.int64)
    return offsets, timestamps, Spans.of([record.value for record in records])


def chunks(stretches: Iterable[LogStretch], policy: BatchPolicy) -> Iterator[Chunk]:
    """Yield chunks of a size like the worker's micro-batches; the last ones of all partitions come at the end.

    Args:
        stretches: of several partitions, those of each in the order of their offsets; none that is deleted.
        policy: number of rows and bytes at which a chunk is whole.
    """
    growing: dict[int, Chunk] = {}
    for stretch in stretches:
        left: LogStretch | None = stretch
        while left is not None:
            chunk = growing.setdefault(left.partition, Chunk(left.partition))
            here, left = _cut(left, policy.max_rows - len(chunk))
            chunk.add(here)
            if len(chunk) >= policy.max_rows or chunk.size >= policy.max_bytes:
                yield growing.pop(chunk.partition)
            elif _too_much(growing.values(), policy):
                yield growing.pop(max(growing, key=lambda number: len(growing[number])))
    yield from growing.values()


def _too_much(growing: Collection[Chunk], policy: BatchPolicy) -> bool:
    """Tell whether unfinished chunks of many partitions take more memory, or keep the threads waiting, for too long."""
    rows, size = sum(len(chunk) for chunk in growing), sum(chunk.size for chunk in growing)
    return rows >= _MOST_GROWING * policy.max_rows or size >= _MOST_GROWING * policy.max_bytes


def _cut(stretch: LogStretch, most: int) -> tuple[LogStretch, LogStretch | None]:
    """Split a stretch behind this many records; there is no rest if it has no more."""
    if len(stretch.records) <= most:
        return stretch, None
    at = stretch.records[most].offset
    return stretch._replace(next_offset=at, records=stretch.records[:most]), stretch._replace(
        first=at, records=stretch.records[most:]
    )
