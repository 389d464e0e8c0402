"""Stretches of a log: records of one partition that were read without a break."""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pipeline.errors import HaltError


class LogStretch(NamedTuple):
    """Stretch of a partition that was read without a break."""

    partition: int
    first: int
    next_offset: int
    """Offset after the stretch."""
    records: Sequence[Any] = ()
    """Records by ascending offset; an offset may have none."""
    deleted: bool = False
    """True if retention has deleted the stretch before it was read."""
    damage: HaltError | None = None
    """Damage of the log at the next offset; the partition isn't read further."""


def cut(
    ranges: deque[range], partition: int, records: Sequence[Any], next_offset: int, *, deleted: bool = False
) -> Iterator[LogStretch]:
    """Yield the parts of a read stretch that lie in the ranges, and remove these parts from the ranges.

    Args:
        ranges: ascending ranges of one partition that are still to be read.
        partition: number of the partition.
        records: records of the stretch, by ascending offset.
        next_offset: offset after the stretch.
        deleted: True if retention has deleted the stretch.
    """
    rest = records
    while ranges and ranges[0].start < next_offset:
        wanted = ranges.popleft()
        stop = min(wanted.stop, next_offset)
        here, rest = _split(rest, stop)
        yield LogStretch(partition, wanted.start, stop, _split(here, wanted.start)[1], deleted)
        if stop < wanted.stop:
            ranges.appendleft(range(stop, wanted.stop))


def _split(records: Sequence[Any], offset: int) -> tuple[Sequence[Any], Sequence[Any]]:
    """Split records into those below an offset and the others."""
    at = bisect_left(records, offset, key=lambda record: record.offset)
    return records[:at], records[at:]
