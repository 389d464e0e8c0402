"""Spans of a replay: the offsets of each partition that it reads, and the parts of them that lack rows."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pipeline.clickhouse.coordinates import OFFSET, PARTITION, TOPIC_ID, WITHOUT, Source
from pipeline.clickhouse.lookups import all_rows
from pipeline.errors import ConfigError

_STEP = 10_000
# A bitmap counts each offset once, and takes a few bytes for thousands of neighbours.
_COUNTS = f"""
SELECT {PARTITION} AS number, intDiv({OFFSET}, {_STEP}) AS step, groupBitmap({OFFSET}) FROM `{{table}}`
WHERE {TOPIC_ID} = toUUID('{{topic_id}}') AND ({{wanted}}) GROUP BY number, step
"""  # noqa: S608 (names of ours)
_OTHERS = f"""
SELECT toDate(ts) AS day, countIf({TOPIC_ID} = toUUID('{WITHOUT}')), countIf({TOPIC_ID} != toUUID('{WITHOUT}'))
FROM `{{table}}` WHERE {TOPIC_ID} != toUUID('{{topic_id}}') GROUP BY day ORDER BY day
"""  # noqa: S608 (as above)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).date()


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of what a replay reads: an offset of all partitions, offsets of some, or a time; by default none."""

    offset: int | None = None
    by_partition: Mapping[int, int] = field(default_factory=dict)
    time: datetime | None = None

    def of(self, partition: int, at_time: Mapping[int, int], otherwise: int) -> int:
        """Return the offset in a partition.

        Args:
            partition: its number.
            at_time: offset of the first record at or after the time, by partition; without one if there is none.
            otherwise: offset of a partition that isn't bounded.
        """
        if self.time is not None:
            return at_time.get(partition, otherwise)
        return self.by_partition.get(partition, otherwise if self.offset is None else self.offset)


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of one partition that a replay is to fill."""

    source: Source
    offsets: range
    """Offsets that it may read: asked for, held by the source, and below the committed offset of the own topic."""
    deleted: int
    """Number of offsets that were asked for and that retention has deleted."""
    gaps: tuple[range, ...] = ()
    """Parts of the offsets that lack rows; each is read as a whole."""
    stored: int = 0
    """Number of offsets that have a row already."""
    ahead: int = 0
    """Number of offsets that a file has at or above the committed offset: they are left to the workers."""


@dataclass(frozen=True, slots=True)
class Others:
    """Rows of one day that aren't known to be of the source's records."""

    day: int
    """Days since 1970."""
    without: int
    """Rows without coordinates, from before the columns were added or from other writers."""
    foreign: int
    """Rows with coordinates of another topic, or of a file."""

    @property
    def date(self) -> str:
        """The day, as in ClickHouse."""
        return str(datetime.fromtimestamp(self.day * 86_400, UTC).date())


def check_partitions(bounds: Iterable[Bound], partitions: Iterable[int], topic: str) -> None:
    """Check that bounds name partitions of the topic only.

    Raises:
        ConfigError: one has no such partition.
    """
    known = set(partitions)
    for bound in bounds:
        if unknown := sorted(bound.by_partition.keys() - known):
            raise ConfigError(f"topic {topic}: no partition {unknown[0]}; expected one of {min(known)} to {max(known)}")


def find_gaps(client: Any, table: str, spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the spans with the parts that lack rows in a table, found by the number of offsets that have one.

    Args:
        client: connected, with the table's database as default.
        table: name of a table with coordinates.
        spans: of one topic.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    spans = tuple(spans)
    wanted = " OR ".join(
        f"({PARTITION} = {span.source.partition} AND {OFFSET} BETWEEN {span.offsets.start} AND {span.offsets.stop - 1})"
        for span in spans
        if span.offsets
    )
    if not wanted:
        return spans
    query = _COUNTS.format(table=table, topic_id=spans[0].source.topic_id, wanted=wanted)
    counts = {(number, step): count for number, step, count in all_rows(client, query)}
    return tuple(_with_gaps(span, counts) for span in spans)


def _with_gaps(span: Span, counts: Mapping[tuple[int, int], int]) -> Span:
    number, gaps, stored = span.source.partition, list[range](), 0
    for part in _steps(span.offsets):
        here = counts.get((number, part.start // _STEP), 0)
        stored += here
        if here == len(part):
            continue
        if gaps and gaps[-1].stop == part.start:
            part = range(gaps.pop().start, part.stop)  # noqa: PLW2901 (neighbours are read in one go)
        gaps.append(part)
    return replace(span, gaps=tuple(gaps), stored=stored)


def _steps(offsets: range) -> Iterator[range]:
    start = offsets.start
    while start < offsets.stop:
        stop = min((start // _STEP + 1) * _STEP, offsets.stop)
        yield range(start, stop)
        start = stop


def find_others(client: Any, table: str, topic_id: UUID) -> tuple[Others, ...]:
    """Return the days that have rows without coordinates of this topic, in their order.

    Args:
        client: connected, with the table's database as default.
        table: name of a table with coordinates.
        topic_id: of the topic, or what stands for it.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    rows = all_rows(client, _OTHERS.format(table=table, topic_id=topic_id))
    return tuple(Others((day - _EPOCH).days, without, foreign) for day, without, foreign in rows)
