"""Rewrite: days of a table are made anew from the log, and swapped in.

1. The rows of all records below the committed offsets go into a staging table, made by the rules of today.
2. Rows of the days whose records the log no longer has are copied as they are.
3. Under a barrier, which holds up inserts for a moment, the rows above those offsets are copied, and the days swapped.
4. A fill follows: it finds nothing, unless a barrier wasn't possible.

On replicated tables a barrier would hold up one server only, and on an empty table none. There, live rows may be lost
in the swap. They are of ranges that were recorded beside the committed offsets at that moment: once these are
committed, the fill inserts what is missing.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.clickhouse.barrier import barrier, works
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.contract import check_tables
from pipeline.clickhouse.sink import Sink
from pipeline.clickhouse.table_lock import TableLock
from pipeline.config import Settings
from pipeline.errors import UnavailableError
from pipeline.lineage.family_log import FamilyLog
from pipeline.lineage.filler import Filler
from pipeline.lineage.pace import Pace
from pipeline.lineage.plan import RemovalError, ReplayPlan
from pipeline.lineage.replay import Report, Result, make_filler, tidy, work
from pipeline.lineage.spans import Span, find_gaps
from pipeline.lineage.staging import Staging

_POLL_SECONDS = 0.2
_LISTED = 3


@dataclass(slots=True)
class Rewritten:
    """Result of a rewrite."""

    made: Result = field(default_factory=Result)
    """Rows made anew."""
    carried: int = 0
    """Rows copied as they were, because their records aren't read."""
    removed: int = 0
    stall_ms: float = 0.0
    """Time for which inserts were held up."""
    filled: Result = field(default_factory=Result)
    """Rows that the fill after the swap inserted."""
    swapped: bool = False


class Rewrite:
    """One rewrite of days of a table.

    Args:
        settings: broker, group, ClickHouse, rules.
        plan: with the days in its target.
        log: of the family's topic.
        allow_removal: remove rows whose records make no row of these days any more.
        use_barrier: False for the way of replicated tables.
        settle_seconds: longest wait until recorded ranges are committed.
    """

    def __init__(
        self,
        settings: Settings,
        plan: ReplayPlan,
        log: FamilyLog,
        *,
        allow_removal: bool = False,
        use_barrier: bool = True,
        settle_seconds: float = 120.0,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._log = log
        self._allow_removal = allow_removal
        self._use_barrier = use_barrier
        self._settle_seconds = settle_seconds
        self._table = plan.target.family.table
        self._starts = {span.source.partition: span.offsets.start for span in plan.spans}
        self._ends = {span.source.partition: span.offsets.stop for span in plan.spans}

    def run(
        self,
        done: Rewritten,
        *,
        pace: Pace | None = None,
        wanted: Callable[[], bool] = lambda: True,
        report: Report = lambda _: None,
    ) -> None:
        """Make the rewrite; return when it is done, or without a change soon after `wanted` says no.

        Args:
            done: gets what is done, also before a failure.
            pace: limit on the records per second.
            wanted: False to stop before the swap.
            report: called after each chunk.

        Raises:
            RemovalError: rows would be removed.
            TakenError: another replay of the table is under way.
            UnavailableError, HaltError: a server doesn't answer or refuses. Before the swap nothing was changed.
            clickhouse_driver.errors.Error, OSError, EOFError: wrap the call in `pipeline.clickhouse.client.explained`.
        """
        clickhouse = self._settings.clickhouse
        with TableLock(clickhouse, self._table) as lock, connect(clickhouse) as client:
            tidy(clickhouse, self._table)
            sink = Sink(clickhouse, comment=lock.comment)
            days = [str(day) for day in self._plan.dates]
            staging = Staging(client, self._table, self._plan.target.topic_id, days, secrets.token_hex(4))
            with staging.created(clickhouse):
                self._make(sink, staging, done, lock.check, pace=pace or Pace(), wanted=wanted, report=report)
                done.made.stopped = not wanted()
                if done.made.stopped:
                    return
                done.carried = staging.carry_before(self._starts)
                self._check_removals(staging, done)
                lock.check()
                self._swap(client, staging, done)
            self._fill(client, sink, done, lock.check)
            sink.close()

    def _make(
        self,
        sink: Sink,
        staging: Staging,
        done: Rewritten,
        check: Callable[[], None],
        *,
        pace: Pace,
        wanted: Callable[[], bool],
        report: Report,
    ) -> None:
        """Fill the staging table from the log, twice more also up to what has been committed meanwhile."""
        target = replace(self._plan.target, family=replace(self._plan.target.family, table=staging.name))
        sink.expect(check_tables(self._settings.clickhouse, [target.family]))
        filler = make_filler(self._settings, replace(self._plan, target=target), sink, check=check)
        ranges = {number: range(self._starts[number], end) for number, end in self._ends.items()}
        for _ in range(3):
            self._work(filler, ranges, done.made, pace=pace, wanted=wanted, report=report)
            now = self._log.committed()
            ranges = {number: range(end, max(end, now.get(number, 0))) for number, end in self._ends.items()}
            if not wanted() or not any(ranges.values()):
                return
            self._ends = {number: some.stop for number, some in ranges.items()}
        self._work(filler, ranges, done.made, pace=pace, wanted=wanted, report=report)

    def _work(self, filler: Filler, ranges: Mapping[int, range], result: Result, **how: Any) -> None:
        read = self._log.read({number: (some,) for number, some in ranges.items()}, how.get("wanted", lambda: True))
        policy = self._plan.target.family.batch
        work(filler.fill, read, result, policy=policy, threads=self._settings.worker.insert_threads, **how)
        result.raise_damage()

    def _check_removals(self, staging: Staging, done: Rewritten) -> None:
        removed = staging.removed(self._starts, self._ends)
        done.removed = sum(count for count, _ in removed.values())
        if done.removed and not self._allow_removal:
            places = ", ".join(
                f"{offset} of partition {number}"
                for number, (_, offsets) in list(removed.items())[:_LISTED]
                for offset in offsets[:_LISTED]
            )
            days = ", ".join(map(str, self._plan.dates))
            raise RemovalError(
                f"table {self._table}: {done.removed:,} rows of {days} would be removed: their "
                f" records make no row of these days any more, as those at offset {places}; expected each to make "
                "one: `chimera replay` without --day lists rejected records; add --allow-removal to remove them"
            )

    def _swap(self, client: Any, staging: Staging, done: Rewritten) -> None:
        if self._use_barrier and works(client, self._table):
            began = time.perf_counter()
            with barrier(self._settings.clickhouse, client, self._table):
                done.carried += staging.carry_after(self._ends)
                staging.swap()
                done.swapped = True
            done.stall_ms = (time.perf_counter() - began) * 1000
        else:
            done.carried += staging.carry_after(self._ends)
            staging.swap()
            done.swapped = True
            self._settle()

    def _settle(self) -> None:
        """Wait until the ranges that are recorded now are committed."""
        deadline = time.monotonic() + self._settle_seconds
        awaited = self._log.recorded_ends()
        while True:
            now = self._log.committed()
            if all(now.get(number, 0) >= end for number, end in awaited.items()):
                self._ends = {number: max(end, now.get(number, 0)) for number, end in self._ends.items()}
                return
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"table {self._table}: swapped, but the workers haven't committed the ranges in flight within "
                    f"{self._settle_seconds:.0f} s; when they have, run `chimera replay "
                    f"{self._plan.target.family.name} --execute` to fill in what the swap may have cost"
                )
            time.sleep(_POLL_SECONDS)

    def _fill(self, client: Any, sink: Sink, done: Rewritten, check: Callable[[], None]) -> None:
        """Fill what the table lacks of the records that were read."""
        target = replace(self._plan.target, only_days=None)
        sink.expect(check_tables(self._settings.clickhouse, [target.family]))
        filler = make_filler(self._settings, replace(self._plan, target=target), sink, check=check)
        spans = [
            Span(span.source, range(span.offsets.start, self._ends[span.source.partition]), 0)
            for span in self._plan.spans
        ]
        for span in find_gaps(client, self._table, spans):
            for gap in span.gaps:
                self._work(filler, {span.source.partition: gap}, done.filled)
