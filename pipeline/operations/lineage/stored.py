"""Rows of one table by the coordinates of their records, asked for in stretches of offsets, so that memory is bounded.

A row's offset is one bit of a word of 64 offsets. The server makes the words and counts the rows of each; the words
that have more rows than bits have rows with the same offset.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.clickhouse.coordinates import OFFSET, PARTITION, TOPIC_ID, WITHOUT, Source
from pipeline.clickhouse.lookups import all_rows
from pipeline.columns import Ints, Mask
from pipeline.operations.lineage.extents import Extent

STRETCH = 1 << 22
"""Most offsets of a partition that are compared at once."""
LOOKUP = 1 << 24
"""Most offsets of one look-up."""
HOUR_MS = 3_600_000
_BITS = 64
_SHOWN_WORDS = 10_000  # most words that a query names
_BEFORE, _WITHIN, _AFTER = range(3)
# ruff: noqa: S608 (names and numbers of ours)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some offsets of one partition, and the times between which their rows are."""

    source: Source
    offsets: range
    rows: int
    """Number of rows at the time of the survey."""
    times: tuple[int, int] | None
    """First and last `ts` in ms; None for any time."""

    def __len__(self) -> int:
        return len(self.offsets)


class Presence(NamedTuple):
    """The offsets of a stretch that the table has rows of."""

    present: Mask
    rows: int
    doubled_words: Ints
    """Words of 64 offsets (offset // 64) that have more rows than offsets."""


class Surplus(NamedTuple):
    """Rows of one hour that are surplus, and the first of their offsets."""

    hour: int
    rows: int
    offsets: list[int]


@dataclass(frozen=True, slots=True)
class Survey:
    """Number and place of a table's rows."""

    stretches: tuple[Stretch, ...]
    """All offsets that are compared, by partition and offset, with rows or without."""
    rows: dict[int, tuple[int, int, int]]
    """Rows by partition: below the log's begin, within the extent, and behind it."""
    last: dict[int, int]
    """Greatest offset by partition."""
    first: dict[int, int]
    """Smallest offset by partition."""
    unknown: int
    """Rows without coordinates."""
    other_topics: int
    """Rows of topics with another id."""

    @property
    def known_from(self) -> dict[int, int] | None:
        """First offset with a row, by partition, if there are rows without coordinates too; else None."""
        return self.first if self.unknown else None


class StoredRows:
    """Rows of one topic in its table.

    Methods raise UnavailableError if the server ends a query without its result, and the driver's errors: wrap the
    calls in `pipeline.clickhouse.client.explained`.

    Args:
        client: connected, with the table's database as default; its user may SELECT from the table.
        table: one of the tables of the families.
        extents: of all partitions of the topic.
        times: values of `ts` to count rows of, in ms; None for all.
    """

    def __init__(self, client: Any, table: str, extents: Sequence[Extent], times: range | None = None) -> None:
        self._client = client
        self._table = table
        self._extents = extents
        self._topic_id = extents[0].source.topic_id
        self._of_topic = f"{TOPIC_ID} = toUUID('{self._topic_id}')"
        self._of_day = "1" if times is None else _between(times.start, times.stop - 1)
        numbers = [extent.source.partition for extent in extents]
        begins, ends = (_array(getattr(e.offsets, name) for e in extents) for name in ("start", "stop"))
        begin, end = (f"transform({PARTITION}, {numbers}, {offsets}, toUInt64(0))" for offsets in (begins, ends))
        self._zone = f"multiIf({OFFSET} < {begin}, {_BEFORE}, {OFFSET} < {end}, {_WITHIN}, {_AFTER})"

    def survey(self) -> Survey:
        """Count the rows of the table, and find the times of each stretch."""
        chunk, ms = f"if(zone = {_WITHIN}, intDiv({OFFSET}, {STRETCH}), 0) AS chunk", "toUnixTimestamp64Milli"
        found = self._rows(
            f"SELECT {PARTITION} AS partition, {self._zone} AS zone, {chunk}, count(), countIf({self._of_day}), "
            f"min({OFFSET}), max({OFFSET}), {ms}(min(ts)), {ms}(max(ts)) "
            f"FROM `{self._table}` WHERE {self._of_topic} GROUP BY partition, zone, chunk"
        )
        rows: dict[int, tuple[int, int, int]] = {}
        times: dict[tuple[int, int], tuple[int, int, int]] = {}
        for partition, zone, at, count, of_day, _, _, earliest, latest in found:
            before = rows.get(partition, (0, 0, 0))
            rows[partition] = (*before[:zone], before[zone] + of_day, *before[zone + 1 :])
            if zone == _WITHIN:
                times[partition, at] = (count, earliest, latest)
        partitions = {row[0] for row in found}
        return Survey(
            tuple(self._stretches(times)),
            rows,
            {number: max(row[6] for row in found if row[0] == number) for number in partitions},
            {number: min(row[5] for row in found if row[0] == number) for number in partitions},
            *self._of_no_record(),
        )

    def _of_no_record(self) -> tuple[int, int]:
        """Count the rows without coordinates, and those of other topics."""
        unknown = f"{TOPIC_ID} = toUUID('{WITHOUT}')"
        ((without, other),) = self._rows(
            f"SELECT countIf({unknown} AND {self._of_day}), countIf(NOT ({unknown}) AND {self._of_day}) "
            f"FROM `{self._table}` WHERE NOT ({self._of_topic})"
        )
        return without, other

    def _stretches(self, times: dict[tuple[int, int], tuple[int, int, int]]) -> Iterator[Stretch]:
        for extent in self._extents:
            offsets = extent.offsets
            for at in range(offsets.start // STRETCH, -(-offsets.stop // STRETCH)):
                begin, end = max(offsets.start, at * STRETCH), min(offsets.stop, (at + 1) * STRETCH)
                count, earliest, latest = times.get((extent.source.partition, at), (0, 0, 0))
                if begin < end:
                    yield Stretch(extent.source, range(begin, end), count, (earliest, latest))

    def presences(self, stretches: Sequence[Stretch]) -> list[Presence]:
        """Return the offsets of each stretch that have rows, in one query."""
        partitions, words, masks, counts = self._words([each for each in stretches if each.rows])
        found = []
        for each in stretches:
            begin, end = each.offsets.start // _BITS, -(-each.offsets.stop // _BITS)
            here = np.flatnonzero((partitions == each.source.partition) & (words >= begin) & (words < end))
            full = np.zeros(end - begin, "<u8")
            full[words[here] - begin] = masks[here]
            bits = np.unpackbits(full.view(np.uint8), bitorder="little").astype(np.bool_)
            present = bits[each.offsets.start - begin * _BITS :][: len(each)]
            doubled = words[here][counts[here] > np.bitwise_count(masks[here])]
            found.append(Presence(present, int(counts[here].sum()), doubled))
        return found

    def _words(self, stretches: Sequence[Stretch]) -> tuple[Ints, Ints, Any, Ints]:
        """Return partition, word, offsets as bits, and number of rows; a word belongs to one of the stretches."""
        if not stretches:
            nothing = np.empty(0, np.int64)
            return nothing, nothing, np.empty(0, np.uint64), nothing
        ((partitions, words, masks, counts),) = self._rows(
            "SELECT groupArray(partition), groupArray(word), groupArray(mask), groupArray(rows) FROM "
            f"(SELECT {PARTITION} AS partition, intDiv({OFFSET}, {_BITS}) AS word, "
            f"groupBitOr(bitShiftLeft(toUInt64(1), {OFFSET} % {_BITS})) AS mask, count() AS rows "
            f"FROM `{self._table}` WHERE {' OR '.join(f'({self._within(each)})' for each in stretches)} "
            "GROUP BY partition, word)"
        )
        numbers = (np.array(column, np.int64) for column in (partitions, words, counts))
        partition, word, count = numbers
        return partition, word, np.array(masks, np.uint64), count

    def doubled(self, stretch: Stretch, words: Ints, limit: int) -> list[Surplus]:
        """Return the rows beyond the first of each offset, by hour of `ts`.

        Args:
            stretch: some offsets.
            words: `doubled_words` of the stretch.
            limit: number of offsets to name in each hour.
        """
        named = f" AND intDiv({OFFSET}, {_BITS}) IN {words.tolist()}" if len(words) <= _SHOWN_WORDS else ""
        return self._surplus(f"{self._within(stretch)}{named}", "count() - 1", limit)

    def of_offsets(self, source: Source, offsets: Ints, limit: int) -> Iterator[Surplus]:
        """Yield these offsets as if each had one row too many, by hour of `ts`."""
        for begin in range(0, len(offsets), _SHOWN_WORDS):
            some = offsets[begin : begin + _SHOWN_WORDS].tolist()
            yield from self._surplus(f"{self._of_partition(source)} AND {OFFSET} IN {some}", "1", limit)

    def _surplus(self, where: str, extra: str, limit: int) -> list[Surplus]:
        hour = f"toInt64(floor(toUnixTimestamp64Milli(at) / {HOUR_MS})) AS hour"
        found = self._rows(
            f"SELECT {hour}, sum(extra), groupArraySorted({max(1, limit)})(row_offset) "
            f"FROM (SELECT {OFFSET} AS row_offset, {extra} AS extra, min(ts) AS at FROM `{self._table}` "
            f"WHERE {where} GROUP BY row_offset HAVING extra > 0 AND countIf({self._of_day}) > 0) "
            "GROUP BY hour ORDER BY hour"
        )
        return [Surplus(*row) for row in found]

    def beyond(self, ends: dict[int, int]) -> dict[int, int]:
        """Count the rows at or behind the end of each log, by partition; a partition that isn't in `ends` has none."""
        end = f"transform({PARTITION}, {list(ends)}, {_array(ends.values())}, toUInt64(0))"
        return dict(
            self._rows(
                f"SELECT {PARTITION}, count() FROM `{self._table}` "
                f"WHERE {self._of_topic} AND {self._of_day} AND {OFFSET} >= {end} GROUP BY {PARTITION}"
            )
        )

    def hours(self) -> dict[tuple[int, int], int]:
        """Count the compared rows by partition and hour of `ts`, in hours since 1970."""
        hour = f"toInt64(floor(toUnixTimestamp64Milli(ts) / {HOUR_MS}))"
        found = self._rows(
            f"SELECT {PARTITION}, {hour}, count() FROM `{self._table}` WHERE {self._of_topic} AND {self._of_day} "
            f"AND {self._zone} = {_WITHIN} GROUP BY 1, 2"
        )
        return {(partition, at): count for partition, at, count in found}

    def _of_partition(self, source: Source) -> str:
        return f"{self._of_topic} AND {PARTITION} = {source.partition}"

    def _within(self, stretch: Stretch) -> str:
        offsets = stretch.offsets
        where = f"{self._of_partition(stretch.source)} AND {OFFSET} >= {offsets.start} AND {OFFSET} < {offsets.stop}"
        if stretch.times is None:
            return where
        return f"{where} AND {_between(*stretch.times)}"

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return all_rows(self._client, query)


def _between(first: int, last: int) -> str:
    return f"ts BETWEEN fromUnixTimestamp64Milli({first}, 'UTC') AND fromUnixTimestamp64Milli({last}, 'UTC')"


def lookups(stretches: Sequence[Stretch]) -> Iterator[list[Stretch]]:
    """Group stretches that are looked up together: a table is read once for many of them."""
    group: list[Stretch] = []
    for each in stretches:
        if group and sum(map(len, group)) + len(each) > LOOKUP:
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def _array(offsets: Iterable[int]) -> str:
    return f"[{', '.join(f'toUInt64({offset})' for offset in offsets)}]"
