"""Chunks of a replay: records of one partition that are decoded, looked up and inserted in one go."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from pipeline.catalog import BatchPolicy
from pipeline.columns import Ints
from pipeline.transport.stretches import LogStretch

_MOST_GROWING = 2  # whole chunks that all unfinished ones together may have the size of


@dataclass(slots=True)
class Chunk:
    """Records of one partition by ascending offset, gathered from stretches of its log."""

    partition: int
    passed: int = 0
    """Number of offsets that its stretches cover, with a record or without."""
    size: int = 0
    """Bytes of the values."""
    values: list[bytes | None] = field(default_factory=list)
    _offsets: list[int] = field(default_factory=list)
    _timestamps: list[int | None] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of records."""
        return len(self.values)

    @property
    def offsets(self) -> Ints:
        """Offset of each record."""
        return np.array(self._offsets, np.int64)

    @property
    def timestamps(self) -> Ints | None:
        """Kafka's timestamp of each record, ms; None if the records come from a file that has none."""
        known = [timestamp for timestamp in self._timestamps if timestamp is not None]
        return np.array(known, np.int64) if len(known) == len(self._timestamps) else None

    def add(self, stretch: LogStretch) -> None:
        """Add the records of the next stretch."""
        values = [record.value for record in stretch.records]
        self.values += values
        self._offsets += [record.offset for record in stretch.records]
        self._timestamps += [record.timestamp for record in stretch.records]
        self.passed += stretch.next_offset - stretch.first
        self.size += sum(len(value) for value in values if value)


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
