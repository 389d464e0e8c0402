"""Result of a comparison of the log with a table and its dead letters."""

import enum
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

import numpy as np

from pipeline.columns import Ints

_EPOCH, _DAY_MS = date(1970, 1, 1), 86_400_000


class Fault(enum.StrEnum):
    """Kind of a difference that is listed."""

    LOST_ROW = "lost row"
    LOST_LETTER = "lost dead letter"
    DOUBLED = "doubled"
    ROW_AND_LETTER = "row and dead letter"


@dataclass(slots=True)
class Listed:
    """Differences of one kind at successive offsets of a partition."""

    fault: Fault
    partition: int
    first: int
    last: int
    first_hour: int | None
    """Hour of the first event, in hours since 1970; None if it is unknown."""
    last_hour: int | None


class Spot(NamedTuple):
    """Partition and hour, in hours since 1970; the hour is None for records without a readable time."""

    partition: int
    hour: int | None


@dataclass(slots=True)
class PartitionReport:
    """Numbers of one partition.

    rows + dead_letters + no_record + expired + replaced + unknown + deleted + lost - doubled = offsets, unless only a
    day is looked at: then rows, doubled, lost, expired, replaced and unknown are those of the day.
    """

    partition: int
    begin: int
    """Offset of the log's first record."""
    committed: int
    offsets: int
    """Number of offsets that are compared: from `begin` up to the committed offset."""
    rows: int = 0
    dead_letters: int = 0
    """Offsets with a dead letter, settled or not."""
    no_record: int = 0
    """Offsets without a record: markers and aborted records of transactions, and compacted records."""
    expired: int = 0
    """Records without a row whose time the table's TTL has expired."""
    replaced: int = 0
    """Records whose row a ReplacingMergeTree may have replaced by a newer one."""
    unknown: int = 0
    """Records that rows without coordinates may stand for."""
    deleted: int = 0
    """Records that retention has deleted during the comparison, and rejected records whose dead letter it has."""
    lost: int = 0
    doubled: int = 0
    """Rows beyond the first of a record, and records with a row and a dead letter."""
    strange: int = 0
    """Rows whose offset or partition the log hasn't reached."""
    before: int = 0
    """Rows of records that retention has deleted: they are compared with nothing."""
    ahead: int = 0
    """Rows of records that the group hasn't committed yet."""


@dataclass(slots=True)
class FamilyReport:
    """Result for one family."""

    family: str
    table: str
    topic: str
    topic_id: UUID
    partitions: dict[int, PartitionReport]
    limit: int
    """Number of entries in `listed`, at most."""
    unknown_rows: int = 0
    """Rows without coordinates."""
    other_topics: int = 0
    """Rows of topics with another id: of one that was created anew, or from a backfill."""
    held_up: bool = False
    """True if a barrier holds up inserts into the table: a replay exchanges a day, or was killed while it did."""
    rows_by: Counter[Spot] = field(default_factory=Counter)
    doubled_by: Counter[Spot] = field(default_factory=Counter)
    lost_by: Counter[Spot] = field(default_factory=Counter)
    listed: list[Listed] = field(default_factory=list)
    """The first differences."""

    def total(self, name: str) -> int:
        """Sum of a number over all partitions."""
        return sum(getattr(each, name) for each in self.partitions.values())

    @property
    def differs(self) -> bool:
        """True if rows or dead letters are lost, doubled, or of records that aren't in the log."""
        return any(self.total(name) for name in ("lost", "doubled", "strange"))

    def note(self, fault: Fault, partition: int, offsets: Ints, hours: Ints | None) -> None:
        """List differences at ascending offsets, those at successive offsets as one.

        Args:
            fault: their kind.
            partition: their partition.
            offsets: their offsets.
            hours: their hours since 1970; None if they are unknown.
        """
        breaks = np.flatnonzero(np.diff(offsets) != 1)[: self.limit + 1] + 1
        bounds = [0, *breaks.tolist(), len(offsets)][: self.limit + 2]
        for begin, end in pairwise(bounds if len(offsets) else ()):
            part = None if hours is None else hours[begin:end]
            times = (None, None) if part is None else (int(part.min()), int(part.max()))
            self._append(Listed(fault, partition, int(offsets[begin]), int(offsets[end - 1]), *times))

    def _append(self, new: Listed) -> None:
        before = self.listed[-1] if self.listed else None
        if before and (before.fault, before.partition, before.last + 1) == (new.fault, new.partition, new.first):
            before.last = new.last
            if before.first_hour is not None and before.last_hour is not None and new.first_hour is not None:
                before.first_hour = min(before.first_hour, new.first_hour)
                before.last_hour = max(before.last_hour, new.last_hour or new.first_hour)
        elif len(self.listed) < self.limit:
            self.listed.append(new)


class Wanted(NamedTuple):
    """Options of a comparison."""

    day: date | None = None
    """Day of the events; None for all."""
    hours: bool = False
    """True to count rows by hour and partition."""
    limit: int = 20
    """Number of differences to list for each family."""

    @property
    def times(self) -> range | None:
        """Times of the day's events, in ms since 1970; None for all times."""
        if self.day is None:
            return None
        begin = (self.day - _EPOCH).days * _DAY_MS
        return range(begin, begin + _DAY_MS)
