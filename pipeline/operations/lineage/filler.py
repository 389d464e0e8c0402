"""Filling: the rows of a chunk whose coordinates a table lacks are inserted."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pipeline.catalog import Family
from pipeline.clickhouse.client import kind_of
from pipeline.clickhouse.coordinates import OFFSET, Source
from pipeline.clickhouse.refusals import find_refused_now, refused_as_a_block
from pipeline.clickhouse.repeated_insert import RepeatedInsert
from pipeline.clickhouse.row_lookups import RowLookups
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column, Ints, Mask, Rejection, Rows, select
from pipeline.decode.decoder import Decoder
from pipeline.errors import FailureKind, Reason
from pipeline.operations.lineage.chunks import Chunk
from pipeline.retry import pauses

T = TypeVar("T")

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
_PATIENCE_SECONDS = 60.0
_PAUSES = (0.2, 5.0)
_LISTED = 100


class Rejected(NamedTuple):
    """A record that a replay doesn't make a row of; never its content."""

    partition: int
    offset: int
    reason: Reason
    detail: str


@dataclass(slots=True)
class ReplayCounts:
    """Counts of a replay, or of one chunk of it."""

    passed: int = 0
    """Offsets that were read past, with a record or without."""
    records: int = 0
    present: int = 0
    """Records whose row the table had already."""
    inserted: int = 0
    lettered: int = 0
    """Records that are dead letters, and are left to `chimera dlq`."""
    expired: int = 0
    """Rows that the table's TTL has expired."""
    withheld: int = 0
    """Rows of days that have rows of unknown origin."""
    rejected: Counter[Reason] = field(default_factory=Counter)
    listed: list[Rejected] = field(default_factory=list)
    """The first rejected records."""
    days: Counter[int] = field(default_factory=Counter)
    """Inserted rows by day, in days since 1970."""
    hours: set[int] = field(default_factory=set)
    """Hours of inserted rows, in hours since 1970."""

    def add(self, other: "ReplayCounts") -> None:
        """Add the counts of a chunk."""
        for name in ("passed", "records", "present", "inserted", "lettered", "expired", "withheld"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.rejected += other.rejected
        self.days += other.days
        self.hours |= other.hours
        self.listed += other.listed[: _LISTED - len(self.listed)]


@dataclass(frozen=True, slots=True)
class Target:
    """The table that a replay fills."""

    family: Family
    """The family, with that table in the place of its own."""
    topic_id: UUID
    like: str = ""
    """Table whose structure it gets when it is created; empty if it exists."""
    replaces: bool = False
    """True if the table keeps one row of those with equal keys."""
    withheld_days: frozenset[int] = frozenset()
    """Days that are left as they are, because rows of unknown origin could be the same ones."""
    only_days: frozenset[int] | None = None
    """Days whose rows are inserted; None for all."""
    moved: Mapping[int, Ints] = field(default_factory=dict)
    """Offsets by partition, ascending, whose rows are inserted on any day."""
    lettered: Mapping[int, Ints] = field(default_factory=dict)
    """Offsets of dead-lettered records by partition, ascending."""


class Filler:
    """Fills a table from chunks; several threads may use it at once.

    Args:
        target: the table.
        decoder: decoder of its family, with the worker's rules.
        sink: server and database of the table.
        lookups: the same ones.
        run: name of this run; it makes the tokens of its inserts its own.
        check: called before each insert; its exception ends the replay.
        patience_seconds: longest time for which a failed step is tried again.
    """

    def __init__(
        self,
        target: Target,
        decoder: Decoder,
        sink: Sink,
        lookups: RowLookups,
        *,
        run: str,
        check: Callable[[], None] = lambda: None,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self._target = target
        self._table = target.family.table
        self._decoder = decoder
        self._sink = sink
        self._lookups = lookups
        self._run = run
        self._check = check
        self._patience_seconds = patience_seconds

    def fill(self, chunk: Chunk, *, dry: bool = False) -> ReplayCounts:
        """Insert the rows of a chunk that the table lacks; a failure that passes is tried again for a minute.

        Args:
            chunk: records of one partition.
            dry: True to count the rows only.

        Raises:
            HaltError, UnavailableError, clickhouse_driver.errors.Error, OSError, EOFError: `kind_of` tells the kind.
        """
        counts = ReplayCounts(passed=chunk.passed, records=len(chunk))
        if len(chunk):
            decoded = self._patiently(partial(self._decoder.decode_slices, chunk.slices(), len(chunk)))
            self._note(chunk, decoded.rejections, counts)
            rows = self._kept(chunk, decoded, counts)
            while len(rows):
                found = _Found()
                try:
                    self._insert(chunk, rows.columns, found, dry=dry)
                except Exception as error:
                    if kind_of(error) is not FailureKind.DEAD_LETTER:
                        raise
                else:
                    found.add_to(counts, len(rows))
                    break
                rows = find_refused_now(self._probe, self._table, rows)
                if not rows.rejections:
                    raise refused_as_a_block(self._table)
                self._note(chunk, rows.rejections, counts)
        return counts

    def _probe(self, columns: Mapping[str, Column]) -> int | None:
        return self._patiently(partial(self._sink.refusal_code, self._table, columns))

    def _note(self, chunk: Chunk, rejections: Sequence[Rejection], counts: ReplayCounts) -> None:
        if not rejections:
            return
        counts.rejected.update(rejection.reason for rejection in rejections)
        offsets = chunk.offsets
        counts.listed += [
            Rejected(chunk.partition, int(offsets[position]), reason, detail)
            for position, reason, detail in rejections[:_LISTED]
        ]

    def _kept(self, chunk: Chunk, rows: Rows, counts: ReplayCounts) -> Rows:
        """Leave out rows of dead letters, and of days that are left as they are; add the coordinates to the others."""
        offsets = chunk.offsets[rows.positions]
        days, only = np.asarray(rows.columns["ts"]) // DAY_MS, self._target.only_days
        wanted = np.ones(len(rows), np.bool_) if only is None else np.isin(days, list(only))
        wanted |= np.isin(offsets, self._target.moved.get(chunk.partition, ()))
        lettered = wanted & np.isin(offsets, self._target.lettered.get(chunk.partition, ()))
        withheld = wanted & ~lettered & np.isin(days, list(self._target.withheld_days))
        counts.lettered, counts.withheld = int(lettered.sum()), int(withheld.sum())
        keep = wanted & ~(lettered | withheld)
        columns = rows.columns | Source(self._target.topic_id, chunk.partition).columns(offsets)
        if not keep.all():
            columns = {name: select(column, keep) for name, column in columns.items()}
        return Rows(columns, rows.positions[keep], ())

    def _insert(self, chunk: Chunk, columns: Mapping[str, Column], found: "_Found", *, dry: bool) -> None:
        source = Source(self._target.topic_id, chunk.partition)
        find = partial(self._find, source, found, dry=dry)
        if dry:
            self._patiently(partial(find, columns, tried=False))
            return
        offsets = chunk.offsets
        insert = RepeatedInsert(
            self._sink,
            self._table,
            columns,
            f"replay/{self._run}/{source.topic_id}/{source.partition}/{offsets[0]}-{offsets[-1]}",
            find=find,
            check=self._check,
            look_first=True,
            look_after=False,  # the token is this run's own
        )
        self._patiently(insert.attempt)

    def _find(self, source: Source, found: "_Found", columns: Mapping[str, Column], *, tried: bool, dry: bool) -> Mask:
        offsets, times = np.asarray(columns[OFFSET]), np.asarray(columns["ts"])
        if tried and self._target.replaces:  # a row that another one replaces is never found
            return np.zeros(len(offsets), np.bool_)
        if dry and (self._target.like or self._target.only_days is not None):
            missing = np.ones(len(offsets), np.bool_)
        else:
            missing = self._lookups.missing(self._table, source, offsets, times)
        expired = missing & self._lookups.expired(self._target.like or self._table, times) if missing.any() else missing
        found.note(missing, expired, times)
        return missing & ~expired

    def _patiently(self, step: Callable[[], T]) -> T:
        """Run a step, again while its failure may pass and for no longer than `patience_seconds`."""
        deadline = time.monotonic() + self._patience_seconds
        for pause in pauses(*_PAUSES):
            try:
                return step()
            except Exception as error:
                if kind_of(error) is not FailureKind.RETRY or time.monotonic() > deadline:
                    raise
                self._check()
            time.sleep(pause)
        raise AssertionError("pauses have no end")


class _Found:
    """Result of the first look-up of a chunk's rows; a look-up after an insert finds the inserted ones."""

    def __init__(self) -> None:
        self.looked = False
        self._expired = self._missing = 0
        self._times: NDArray[np.int64] = np.empty(0, np.int64)

    def note(self, missing: Mask, expired: Mask, times: NDArray[np.int64]) -> None:
        """Keep the masks of the rows that the table lacks, and of those of them that its TTL has expired."""
        if not self.looked:
            self.looked = True
            self._missing, self._expired = int(missing.sum()), int(expired.sum())
            self._times = times[missing & ~expired]

    def add_to(self, counts: ReplayCounts, rows: int) -> None:
        """Add to the counts of a chunk of this many rows."""
        counts.present += rows - self._missing
        counts.expired += self._expired
        counts.inserted += len(self._times)
        days, of_days = np.unique(self._times // DAY_MS, return_counts=True)
        counts.days.update(dict(zip(days.tolist(), of_days.tolist(), strict=True)))
        counts.hours.update(np.unique(self._times // HOUR_MS).tolist())
