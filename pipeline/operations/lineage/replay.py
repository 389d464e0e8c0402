"""Replay: reads records beside the worker, and fills a table with the rows that it lacks.

    source ─► chunks ─► decode ─► look up ─► insert
    (caller)            └──── threads, one chunk each ────┘

The source is the family's own log below the committed offsets, where live ingest is done for good, the log of another
topic, or a file (`sources`). A chunk's rows are looked up by their
coordinates, and those that the table lacks are inserted. So a replay may be repeated, and one that was killed goes on
where the table says that it stood.
"""

import math
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from pipeline.catalog import BatchPolicy
from pipeline.clickhouse.barrier import remove_left
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.contract import check_tables
from pipeline.clickhouse.row_lookups import RowLookups
from pipeline.clickhouse.sink import Sink
from pipeline.clickhouse.table_lock import TableLock
from pipeline.columns import core
from pipeline.config import ClickHouseSettings, Settings
from pipeline.decode.decoder import Decoder
from pipeline.errors import HaltError
from pipeline.kafka.registry import registry_of
from pipeline.operations.lineage.chunks import Chunk, chunks
from pipeline.operations.lineage.filler import Filler, ReplayCounts
from pipeline.operations.lineage.pace import Pace
from pipeline.operations.lineage.plan import ReplayPlan, create_like
from pipeline.operations.lineage.sources import RecordSource
from pipeline.operations.lineage.staging import drop_left
from pipeline.privacy.hashing import configured_hasher
from pipeline.privacy.sanitise import Sanitiser
from pipeline.transport.stretches import LogStretch

_SAMPLES = 16
_PIECE = 3_000  # offsets


@dataclass(slots=True)
class Result:
    """Result of a replay, so far or at its end."""

    counts: ReplayCounts = field(default_factory=ReplayCounts)
    deleted: list[LogStretch] = field(default_factory=list)
    """Offsets that retention deleted while the replay ran."""
    damages: list[HaltError] = field(default_factory=list)
    """Damage of the log, at most one of each partition, behind which it wasn't read."""
    seconds: float = 0.0
    stopped: bool = False
    """True if it was stopped before its end."""

    def raise_damage(self) -> None:
        """Raise the first damage of the log, if there is one."""
        for damage in self.damages:
            raise damage


Report = Callable[[Result], None]


def run(
    settings: Settings,
    plan: ReplayPlan,
    source: RecordSource,
    result: Result,
    *,
    pace: Pace | None = None,
    wanted: Callable[[], bool] = lambda: True,
    report: Report = lambda _: None,
) -> None:
    """Fill the plan's table; return when it is done, or soon after `wanted` says no.

    Args:
        settings: ClickHouse, registry, privacy, number of threads.
        plan: the plan.
        source: the plan's source.
        result: gets what is done, also before a failure.
        pace: limit on the records per second.
        wanted: False to stop; chunks under way are finished.
        report: called after each chunk.

    Raises:
        TakenError: another replay of the table is under way.
        UnavailableError, HaltError: a server doesn't answer or refuses; what is inserted stays.
        clickhouse_driver.errors.Error, OSError, EOFError: wrap the call in `pipeline.clickhouse.client.explained`.
    """
    with TableLock(settings.clickhouse, plan.target.family.table) as lock:
        tidy(settings.clickhouse, plan.target.family.table)
        if plan.target.like:
            create_like(settings.clickhouse, plan.target.family.table, plan.target.like)
        sink = Sink(settings.clickhouse, comment=lock.comment)
        sink.expect(check_tables(settings.clickhouse, [plan.target.family]))
        filler = make_filler(settings, plan, sink, check=lock.check)
        read = source.read(plan.ranges, wanted)
        policy, threads = plan.target.family.batch, settings.worker.insert_threads
        work(filler.fill, read, result, policy=policy, threads=threads, pace=pace, wanted=wanted, report=report)
        sink.close()
    result.raise_damage()
    result.stopped = not wanted() and result.counts.passed < plan.offsets


def tidy(clickhouse: ClickHouseSettings, table: str) -> None:
    """Remove the barrier and the staging tables that a killed rewrite left; call it under the table's lock.

    Raises:
        HaltError, UnavailableError: the server refuses, or doesn't answer.
    """
    remove_left(clickhouse, table)
    with explained(clickhouse), connect(clickhouse) as client:
        drop_left(client, table)


def sample(settings: Settings, plan: ReplayPlan, source: RecordSource) -> Result:
    """Read some records from all over the plan's ranges, and count the rows that a replay would insert.

    Args and Raises: as `run`, without a lock.
    """
    sink = Sink(settings.clickhouse)
    filler, result = make_filler(settings, plan, sink), Result()

    def count(chunk: Chunk) -> ReplayCounts:
        return filler.fill(chunk, dry=True)

    policy, threads = plan.target.family.batch, settings.worker.insert_threads
    work(count, source.read(_sampled(plan)), result, policy=policy, threads=threads)
    sink.close()
    result.raise_damage()
    return result


def make_filler(settings: Settings, plan: ReplayPlan, sink: Sink, check: Callable[[], None] = lambda: None) -> Filler:
    """Return a filler with the worker's own rules: its schemas, bounds and privacy."""
    family = plan.target.family
    core.choose(use=settings.worker.compiled_core)
    decoder = Decoder(
        family,
        plan.source.schemas or registry_of(settings.registry),
        settings.validation,
        sanitise=Sanitiser(family.schema, configured_hasher(settings.privacy)),
    )
    lookups = RowLookups(settings.clickhouse)
    return Filler(plan.target, decoder, sink, lookups, run=secrets.token_hex(8), check=check)


def work(
    fill: Callable[[Chunk], ReplayCounts],
    stretches: Iterable[LogStretch],
    result: Result,
    *,
    policy: BatchPolicy,
    threads: int,
    pace: Pace | None = None,
    wanted: Callable[[], bool] = lambda: True,
    report: Report = lambda _: None,
) -> None:
    """Fill chunks in threads while the next ones are fetched; add their outcomes, and damage of the log, to the result.

    Args:
        fill: fills one chunk.
        stretches: of the source.
        result: gets counts and time.
        policy: size of a chunk.
        threads: number of them.
        pace: as for `run`.
        wanted: as for `run`.
        report: as for `run`.
    """
    began, before, pace, under_way = perf_counter(), result.seconds, pace or Pace(), deque[Future[ReplayCounts]]()

    def settle(most: int) -> None:
        while len(under_way) > most:
            result.counts.add(under_way.popleft().result())
            result.seconds = before + perf_counter() - began
            report(result)

    with _pool(threads, under_way, result.counts) as pool:
        for chunk in chunks(_there(stretches, result), policy):
            pace.wait(len(chunk), wanted)
            if not wanted():
                break
            under_way.append(pool.submit(fill, chunk))
            settle(threads)
        settle(0)
    result.seconds = before + perf_counter() - began


@contextmanager
def _pool(
    threads: int, under_way: Iterable[Future[ReplayCounts]], counts: ReplayCounts
) -> Iterator[ThreadPoolExecutor]:
    """Yield threads; after a failure, chunks that haven't begun are left, and the others are counted."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="replay")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        for chunk in under_way:
            if not chunk.cancelled() and not chunk.exception():
                counts.add(chunk.result())


def _there(stretches: Iterable[LogStretch], result: Result) -> Iterator[LogStretch]:
    """Yield the stretches that retention hasn't deleted; the others, and damaged ones, are noted."""
    for stretch in stretches:
        if stretch.damage:
            result.damages.append(stretch.damage)
        elif stretch.deleted:
            result.deleted.append(stretch)
            result.counts.passed += stretch.next_offset - stretch.first
        else:
            yield stretch


def _sampled(plan: ReplayPlan) -> dict[int, list[range]]:
    """Return short ranges from all over the plan's gaps."""
    pieces = [
        (number, range(start, min(start + _PIECE, gap.stop)))
        for number, gaps in plan.ranges.items()
        for gap in gaps
        for start in range(gap.start, gap.stop, _PIECE)
    ]
    picked = dict[int, list[range]]()
    for number, piece in pieces[:: math.ceil(len(pieces) / _SAMPLES) or 1]:
        picked.setdefault(number, []).append(piece)
    return picked
