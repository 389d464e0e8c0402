"""Compare the records of a family's log with its rows and dead letters, offset by offset.

For each partition, all offsets from the log's first record up to the committed offset have a row, a dead letter, or no
record. The comparison goes in stretches of offsets, so memory is bounded. Only records that have neither a row nor a
dead letter are read. Commits are read before dead letters and rows, so live ingest and its unfinished work don't
appear as differences.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from pipeline.catalog import Family
from pipeline.clickhouse.barrier import is_up
from pipeline.clickhouse.catching_up import catch_up
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.contract import check_tables
from pipeline.clickhouse.row_policies import check_all_rows_seen
from pipeline.columns import Ints, Mask
from pipeline.config import Settings
from pipeline.kafka.failures import check_connection
from pipeline.kafka.offsets import TopicReader
from pipeline.operations.lineage.extents import Extent, read_extents
from pipeline.operations.lineage.lettered import Lettered, begun_at, read_lettered
from pipeline.operations.lineage.missing import Missing, Verdict
from pipeline.operations.lineage.report import FamilyReport, Fault, PartitionReport, Spot, Wanted
from pipeline.operations.lineage.stored import HOUR_MS, Presence, StoredRows, Stretch, Surplus, Survey, lookups

Progress = Callable[[str, int, int], None]
"""Function that is told what is being done, how much of it, and how much there is."""


def verify(settings: Settings, family: Family, wanted: Wanted, progress: Progress) -> FamilyReport:
    """Compare all offsets below the committed ones.

    Args:
        settings: servers, and the group whose commits count.
        family: the family.
        wanted: day, hours, length of the list.
        progress: called as the work goes on.

    Raises:
        UnavailableError: a server doesn't answer.
        HaltError: a server refuses, or a topic, a table or its columns are missing.
    """
    check_connection(settings.kafka)
    check_tables(settings.clickhouse, [family])
    with TopicReader(settings.kafka, family.topic.name, only_committed=True) as reader:
        extents = read_extents(settings.kafka, family.topic, reader)
        name = family.name
        lettered = read_lettered(settings.kafka, family, lambda *done: progress(f"{name}: dead letters", *done))
        with explained(settings.clickhouse), connect(settings.clickhouse) as client:
            check_all_rows_seen(client, family.table)
            catch_up(client, family.table)
            rows = StoredRows(client, family.table, extents, wanted.times)
            survey = rows.survey()
            missing = Missing(settings, family, reader, client, lettered, _within(wanted.times), survey.known_from)
            comparison = _Comparison(_empty_report(family, extents, wanted, survey), extents, wanted, rows, missing)
            comparison.run(survey, progress)
            comparison.report.held_up = is_up(client, family.table)
    return comparison.report


def _within(wanted: range | None) -> Callable[[Ints], Mask]:
    """Return the function that tells which times in ms are wanted; None: all of them."""
    if wanted is None:
        return lambda times: np.ones(len(times), np.bool_)
    return lambda times: (times >= wanted.start) & (times < wanted.stop)


class _Comparison:
    """One comparison; `report` grows while it runs."""

    def __init__(
        self,
        report: FamilyReport,
        extents: tuple[Extent, ...],
        wanted: Wanted,
        rows: StoredRows,
        missing: Missing,
    ) -> None:
        self.report = report
        self._extents = {extent.source.partition: extent for extent in extents}
        self._wanted = wanted
        self._rows = rows
        self._missing = missing
        self._reader = missing.reader
        self._lettered: Lettered = missing.lettered
        self._began: dict[int, int] = {}

    def run(self, survey: Survey, progress: Progress) -> None:
        """Compare all stretches."""
        self._count_rows(survey)
        what, total, done = f"{self.report.family}: offsets", sum(map(len, survey.stretches)), 0
        for together in lookups(survey.stretches):
            progress(what, done, total)
            for stretch, presence in zip(together, self._rows.presences(together), strict=True):
                self._compare(stretch, presence, partial(_go_on, progress, what, done, total))
                done += len(stretch)
        progress(what, total, total)
        if self._wanted.hours:
            self.report.rows_by.update({Spot(*at): count for at, count in self._rows.hours().items()})

    def _count_rows(self, survey: Survey) -> None:
        """Count the rows that aren't compared, and those that the log can't have."""
        for number, (before, within, ahead) in survey.rows.items():
            if number in self.report.partitions:
                here = self.report.partitions[number]
                here.before, here.ahead = before, ahead
                here.rows = within if self._wanted.day else 0  # otherwise they are counted with their offsets
        ends = {number: log.stop for number, log in self._reader.ranges().items()}  # later than the survey
        if any(last >= ends.get(number, 0) for number, last in survey.last.items()):
            for number, count in self._rows.beyond(ends).items():
                nowhere = PartitionReport(number, 0, 0, 0)
                strange = self.report.partitions.setdefault(number, nowhere)
                strange.strange = count
                strange.ahead = max(0, strange.ahead - count)

    def _compare(self, stretch: Stretch, held: Presence, progress: Callable[[int], None]) -> None:
        number, begin = stretch.source.partition, stretch.offsets.start
        here = self.report.partitions[number]
        if self._wanted.day is None:
            here.rows += held.rows
        if len(held.doubled_words):
            self._double(number, self._rows.doubled(stretch, held.doubled_words, self._wanted.limit), Fault.DOUBLED)
        letters = self._lettered.offsets(number, stretch.offsets)
        if len(letters):
            letters = self._lettered.offsets(number, stretch.offsets, self._first_time(number))
        here.dead_letters += len(letters)
        both = letters[held.present[letters - begin]]
        if len(both):
            surplus = self._rows.of_offsets(stretch.source, both, self._wanted.limit)
            self._double(number, surplus, Fault.ROW_AND_LETTER)
        absent = ~held.present
        absent[letters - begin] = False
        self._explain(stretch, np.flatnonzero(absent) + begin, progress)

    def _double(self, number: int, surplus: Any, fault: Fault) -> None:
        for each in surplus:
            assert isinstance(each, Surplus)
            self.report.partitions[number].doubled += each.rows
            self.report.doubled_by[Spot(number, each.hour)] += each.rows
            offsets = np.array(each.offsets, np.int64)
            self.report.note(fault, number, offsets, np.full(len(offsets), each.hour))

    def _explain(self, stretch: Stretch, absent: Ints, progress: Callable[[int], None]) -> None:
        """Find out what the offsets without row and dead letter are."""
        number = stretch.source.partition
        here = self.report.partitions[number]
        if (
            self._missing.known_from is not None
        ):  # rows from before there were coordinates may be those of the first offsets
            first = self._missing.known_from.get(number, here.committed)
            here.unknown += int((absent < first).sum())
            absent = absent[absent >= first]
        if not len(absent):
            return
        read = 0
        for verdict in self._missing.judge(number, absent, progress):
            read += len(verdict.read)
            self._take(stretch, verdict)
        if read < len(absent):
            begin = self._reader.ranges([number])[number].start
            deleted = int((absent < begin).sum()) if begin > here.begin else 0
            here.deleted += min(deleted, len(absent) - read)
            here.no_record += max(0, len(absent) - read - deleted)

    def _take(self, stretch: Stretch, verdict: Verdict) -> None:
        number = stretch.source.partition
        here = self.report.partitions[number]
        for name in ("expired", "replaced", "unknown", "deleted"):
            setattr(here, name, getattr(here, name) + getattr(verdict, name))
        rows, hours = verdict.rows, verdict.times // HOUR_MS
        if len(rows):  # another program may have stored them by now, or moved them from one hour to another
            again = range(int(rows[0]), int(rows[-1]) + 1)
            (later,) = self._rows.presences([replace(stretch, offsets=again, rows=1, times=None)])
            present = later.present[rows - again.start]
            here.rows += int(present.sum())
            rows, hours = rows[~present], hours[~present]
        here.lost += len(rows) + len(verdict.letters)
        for hour, count in zip(*(each.tolist() for each in np.unique(hours, return_counts=True)), strict=True):
            self.report.lost_by[Spot(number, hour)] += count
        if len(verdict.letters):
            self.report.lost_by[Spot(number, None)] += len(verdict.letters)
        self.report.note(Fault.LOST_ROW, number, rows, hours)
        self.report.note(Fault.LOST_LETTER, number, verdict.letters, None)

    def _first_time(self, number: int) -> int:
        """Return the time of a log's first record in ms; 0 if the broker doesn't set the times."""
        if number not in self._began:
            self._began[number] = begun_at(self._reader, number, self._extents[number].offsets)
        return self._began[number]


def _go_on(progress: Progress, what: str, done: int, total: int, more: int) -> None:
    progress(what, done + more, total)


def _empty_report(family: Family, extents: tuple[Extent, ...], wanted: Wanted, survey: Survey) -> FamilyReport:
    at = (family.name, family.table, family.topic.name, extents[0].source.topic_id)
    partitions = {extent.source.partition: _partition_report(extent) for extent in extents}
    return FamilyReport(*at, partitions, wanted.limit, survey.unknown, survey.other_topics)


def _partition_report(extent: Extent) -> PartitionReport:
    return PartitionReport(extent.source.partition, extent.begin, extent.committed, len(extent.offsets))
