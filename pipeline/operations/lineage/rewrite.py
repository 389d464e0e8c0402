"""Rewrite: days of a table are made anew from the log, and swapped in.

1. The rows of all records below the committed offsets go into a staging table, made by the rules of today.
2. Rows of the days whose records the log no longer has are copied as they are.
3. Under a barrier, which holds up inserts for a moment, the rows above those offsets and those of unknown origin are
   copied, and the days swapped.
4. A fill of these days follows: it finds nothing, unless a barrier wasn't possible. Removed rows are filled in on the
   new days of their records.

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
from pipeline.clickhouse.catching_up import catch_up
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.contract import check_tables
from pipeline.clickhouse.sink import Sink
from pipeline.clickhouse.table_lock import TableLock
from pipeline.config import Settings
from pipeline.errors import UnavailableError
from pipeline.operations.lineage.family_log import FamilyLog
from pipeline.operations.lineage.filler import Filler
from pipeline.operations.lineage.pace import Pace
from pipeline.operations.lineage.plan import RemovalError, ReplayPlan
from pipeline.operations.lineage.replay import Report, Result, make_filler, tidy, work
from pipeline.operations.lineage.rewrite_offsets import RewriteOffsets
from pipeline.operations.lineage.spans import find_gaps, find_others
from pipeline.operations.lineage.staging import Staging

_POLL_SECONDS = 0.2
_LISTED = 3
_MOST_PASSES = 3


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
        keep_unknown: keep rows of unknown origin.
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
        keep_unknown: bool = False,
        use_barrier: bool = True,
        settle_seconds: float = 120.0,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._log = log
        self._allow_removal = allow_removal
        self._keep_unknown = keep_unknown
        self._use_barrier = use_barrier
        self._settle_seconds = settle_seconds
        self._table = plan.target.family.table

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
            offsets, sink = RewriteOffsets(self._plan, self._log), Sink(clickhouse, comment=lock.comment)
            days, topic_id = map(str, self._plan.dates), self._plan.target.topic_id
            staging = Staging(client, self._table, topic_id, days, secrets.token_hex(4))
            with staging.created(clickhouse):
                self._make(sink, staging, offsets, done, lock.check, pace=pace or Pace(), wanted=wanted, report=report)
                if not wanted():
                    done.made.stopped = True
                    return
                offsets.divide(done.made.deleted)
                done.carried = staging.carry_before(offsets.kept)
                self._check_removals(staging, offsets, done)
                lock.check()
                self._swap(client, staging, offsets, done)
            self._fill(client, sink, offsets, done, lock.check)
            sink.close()

    def _make(
        self,
        sink: Sink,
        staging: Staging,
        offsets: RewriteOffsets,
        done: Rewritten,
        check: Callable[[], None],
        *,
        pace: Pace,
        wanted: Callable[[], bool],
        report: Report,
    ) -> None:
        """Fill the staging table from the log, three times more also up to what has been committed meanwhile."""
        target = replace(self._plan.target, family=replace(self._plan.target.family, table=staging.name))
        sink.expect(check_tables(self._settings.clickhouse, [target.family]))
        ranges = offsets.ranges
        for turn in range(_MOST_PASSES + 1):
            here = replace(self._plan, target=replace(target, lettered=offsets.lettered))
            filler = make_filler(self._settings, here, sink, check=check)
            self._work(filler, ranges, done.made, pace=pace, wanted=wanted, report=report)
            if not wanted() or turn == _MOST_PASSES:
                return
            ranges = offsets.advance()
            if not any(ranges.values()):
                return

    def _work(self, filler: Filler, ranges: Mapping[int, range], result: Result, **how: Any) -> None:
        read = self._log.read({number: (some,) for number, some in ranges.items()}, how.get("wanted", lambda: True))
        policy = self._plan.target.family.batch
        work(filler.fill, read, result, policy=policy, threads=self._settings.worker.insert_threads, **how)
        result.raise_damage()

    def _check_removals(self, staging: Staging, offsets: RewriteOffsets, done: Rewritten) -> None:
        """Check that rows may be removed, and note their offsets."""
        removed = staging.removed(offsets.read)
        done.removed = sum(count for count, _ in removed.values())
        if done.removed and not self._allow_removal:
            places = ", ".join(
                f"{offset} of partition {number}"
                for number, (_, first) in list(removed.items())[:_LISTED]
                for offset in first[:_LISTED]
            )
            days = ", ".join(map(str, self._plan.dates))
            raise RemovalError(
                f"table {self._table}: {done.removed:,} rows of {days} would be removed: their "
                f"records make no row of these days any more, as those at offset {places}; expected each to make "
                "one: `chimera replay` without --day lists rejected records; add --allow-removal to remove them"
            )
        offsets.moved = staging.removed_offsets(offsets.read) if removed else {}

    def _swap(self, client: Any, staging: Staging, offsets: RewriteOffsets, done: Rewritten) -> None:
        if self._use_barrier and works(client, self._table):
            began = time.perf_counter()
            with barrier(self._settings.clickhouse, client, self._table):
                self._exchange(staging, offsets, done)
            done.stall_ms = (time.perf_counter() - began) * 1000
        else:
            self._exchange(staging, offsets, done)
            self._settle(offsets)

    def _exchange(self, staging: Staging, offsets: RewriteOffsets, done: Rewritten) -> None:
        if not self._keep_unknown and (unknown := staging.unknown()):
            raise RemovalError(
                f"table {self._table}: {unknown:,} rows of unknown origin came while the days were made anew, and the "
                "log can't make new ones of them; expected none; nothing was changed: add --keep-unknown to keep them "
                "as they are, if they aren't of the same records"
            )
        done.carried += staging.carry_after(offsets.kept, offsets.read)
        staging.swap()
        done.swapped = True

    def _settle(self, offsets: RewriteOffsets) -> None:
        """Wait until the ranges that are recorded now are committed."""
        deadline = time.monotonic() + self._settle_seconds
        awaited = self._log.recorded_ends()
        while True:
            now = self._log.committed()
            if all(now.get(number, 0) >= end for number, end in awaited.items()):
                offsets.advance()
                return
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"table {self._table}: swapped, but the workers haven't committed the ranges in flight within "
                    f"{self._settle_seconds:.0f} s; when they have, run `chimera replay "
                    f"{self._plan.target.family.name} --execute` to fill in what the swap may have cost"
                )
            time.sleep(_POLL_SECONDS)

    def _fill(
        self,
        client: Any,
        sink: Sink,
        offsets: RewriteOffsets,
        done: Rewritten,
        check: Callable[[], None],
    ) -> None:
        """Fill what the days lack of the records that were read, and the rows of those that moved to other days."""
        catch_up(client, self._table)
        own, plan = self._plan.target.only_days or frozenset(), self._plan
        others = frozenset(some.day for some in find_others(client, self._table, plan.target.topic_id))
        target = replace(plan.target, lettered=offsets.lettered, moved=offsets.moved, withheld_days=others - own)
        sink.expect(check_tables(self._settings.clickhouse, [target.family]))
        filler = make_filler(self._settings, replace(plan, target=target), sink, check=check)
        for span in find_gaps(client, self._table, offsets.spans):
            for gap in span.gaps:
                self._work(filler, {span.source.partition: gap}, done.filled)
