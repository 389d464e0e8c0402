"""Replay: reads a log beside the worker, and fills a table with the rows that it lacks.

    LogReader ─► chunks ─► decode ─► look up ─► insert
    (a thread)   (caller)  └──── threads, one chunk each ────┘

It reads below the committed offsets only, where live ingest is done for good. A chunk's rows are looked up by their
coordinates, and those that the table lacks are inserted. So a replay may be repeated, and one that was killed goes on
where the table says that it stood.
"""

import math
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter

from pipeline.clickhouse.contract import check_tables
from pipeline.clickhouse.row_lookups import RowLookups
from pipeline.clickhouse.sink import Sink
from pipeline.clickhouse.table_lock import TableLock
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.kafka.registry import SchemaRegistry
from pipeline.lineage.chunks import Chunk, chunks
from pipeline.lineage.filler import Filler, ReplayCounts
from pipeline.lineage.pace import Pace
from pipeline.lineage.plan import ReplayPlan, create_like
from pipeline.privacy.hashing import configured_hasher
from pipeline.privacy.sanitise import Sanitiser
from pipeline.transport.adapter.log_reader import LogReader, LogStretch

_SAMPLES = 16
_PIECE = 3_000  # offsets


@dataclass(slots=True)
class Result:
    """Result of a replay, so far or at its end."""

    counts: ReplayCounts = field(default_factory=ReplayCounts)
    deleted: list[LogStretch] = field(default_factory=list)
    """Offsets that retention deleted while the replay ran."""
    seconds: float = 0.0
    stopped: bool = False
    """True if it was stopped before its end."""

    @property
    def records_per_second(self) -> float:
        """Records read in a second."""
        return self.counts.records / self.seconds if self.seconds else 0.0


Report = Callable[[Result], None]


def run(
    settings: Settings,
    plan: ReplayPlan,
    reader: LogReader,
    *,
    pace: Pace | None = None,
    wanted: Callable[[], bool] = lambda: True,
    report: Report = lambda _: None,
) -> Result:
    """Fill the plan's table; return when it is done, or soon after `wanted` says no.

    Args:
        settings: ClickHouse, registry, privacy, number of threads.
        plan: the plan.
        reader: of the family's topic.
        pace: limit on the records per second.
        wanted: False to stop; chunks under way are finished.
        report: called after each chunk.

    Raises:
        TakenError: another replay of the table is under way.
        UnavailableError, HaltError: a server doesn't answer or refuses; what is inserted stays.
        clickhouse_driver.errors.Error, OSError, EOFError: wrap the call in `pipeline.clickhouse.client.explained`.
    """
    with TableLock(settings.clickhouse, plan.target.family.table) as lock:
        if plan.target.like:
            create_like(settings.clickhouse, plan.target.family.table, plan.target.like)
        sink = Sink(settings.clickhouse, comment=lock.comment)
        sink.expect(check_tables(settings.clickhouse, [plan.target.family]))
        filler = make_filler(settings, plan, sink, check=lock.check)
        result = Result()
        read = reader.read(plan.ranges, wanted)
        _work(settings, plan, filler.fill, read, result, pace=pace or Pace(), wanted=wanted, report=report)
        sink.close()
    result.stopped = not wanted() and result.counts.passed < plan.offsets
    return result


def sample(settings: Settings, plan: ReplayPlan, reader: LogReader) -> Result:
    """Read some records from all over the plan's ranges, and count the rows that a replay would insert.

    Args and Raises: as `run`, without a lock.
    """
    sink = Sink(settings.clickhouse)
    filler, result = make_filler(settings, plan, sink), Result()

    def count(chunk: Chunk) -> ReplayCounts:
        return filler.fill(chunk, dry=True)

    _work(settings, plan, count, reader.read(_sampled(plan)), result, pace=Pace())
    sink.close()
    return result


def make_filler(settings: Settings, plan: ReplayPlan, sink: Sink, check: Callable[[], None] = lambda: None) -> Filler:
    """Return a filler with the worker's own rules: its schemas, bounds and privacy."""
    family = plan.target.family
    decoder = Decoder(
        family,
        SchemaRegistry(settings.registry) if settings.registry.url else None,
        settings.validation,
        sanitise=Sanitiser(family.schema, configured_hasher(settings.privacy)),
    )
    lookups = RowLookups(settings.clickhouse)
    return Filler(plan.target, decoder, sink, lookups, run=secrets.token_hex(8), check=check)


def _work(
    settings: Settings,
    plan: ReplayPlan,
    fill: Callable[[Chunk], ReplayCounts],
    stretches: Iterable[LogStretch],
    result: Result,
    *,
    pace: Pace,
    wanted: Callable[[], bool] = lambda: True,
    report: Report = lambda _: None,
) -> None:
    """Fill chunks in threads while the next ones are fetched; add their outcomes to the result."""
    began, threads = perf_counter(), settings.worker.insert_threads
    under_way: deque[Future[ReplayCounts]] = deque()

    def settle(most: int) -> None:
        while len(under_way) > most:
            result.counts.add(under_way.popleft().result())
            result.seconds = perf_counter() - began
            report(result)

    with ThreadPoolExecutor(threads, thread_name_prefix="replay") as pool:
        try:
            for chunk in chunks(_there(stretches, result), plan.target.family.batch):
                pace.wait(len(chunk), wanted)
                if not wanted():
                    break
                under_way.append(pool.submit(fill, chunk))
                settle(threads)
            settle(0)
        finally:
            pool.shutdown(cancel_futures=True)
    result.seconds = perf_counter() - began


def _there(stretches: Iterable[LogStretch], result: Result) -> Iterator[LogStretch]:
    """Yield the stretches that retention hasn't deleted; the others are noted."""
    for stretch in stretches:
        if stretch.deleted:
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
