"""Latency at a steady rate, from an event's production until a query finds it, and its price: CPU time and parts."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from clickhouse_driver import Client

from benchmarks.contenders import WORKER
from benchmarks.load import prepare
from benchmarks.machine import load_average, others_cpu_seconds
from benchmarks.measure import Bench
from benchmarks.process import ContenderError, ContenderProcess, cpu_seconds
from benchmarks.stage import Stage
from benchmarks.visible import Times, Watch
from benchmarks.workload import FAMILY, own_topics, publish
from pipeline.catalog import load_catalog

_LOOK_SECONDS = 0.01
_SAMPLE_SECONDS = 0.25
_STALL_SECONDS = 60.0
_BLOCKS = """
SELECT sumIf(last, table = 'ui_events'), sumIf(last, table = 'session_stats') FROM (
    SELECT table, partition_id, max(max_block_number) AS last FROM system.parts
    WHERE database = currentDatabase() GROUP BY table, partition_id)
"""


@dataclass(frozen=True, slots=True)
class Pace:
    """A rate of events, and the linger of the batch policy."""

    rate: int
    linger_seconds: float
    half: bool = False
    """True if the rate is half of what the worker stores of a backlog."""

    @property
    def name(self) -> str:
        """Name in the results."""
        return f"{'half load' if self.half else f'{self.rate}/s'}, linger {self.linger_seconds:g}"


@dataclass(frozen=True, slots=True)
class Latency:
    """One run at a pace, after its warm-up."""

    pace: Pace
    p50_ms: float
    p99_ms: float
    max_ms: float
    cores: float
    """Cores that the worker used."""
    server_cores: float
    """Cores that ClickHouse used, with the answers to the measurement's own queries."""
    parts_per_minute: float
    """New parts of ui_events, before merges; each is an insert."""
    stats_parts_per_minute: float
    """New parts of session_stats."""
    kept: float
    """Events produced ÷ events due."""
    load: float
    other_cores: float


@dataclass(frozen=True, slots=True)
class _Sample:
    """Counters at one time."""

    ns: int
    worker: float
    server: float
    parts: int
    stats_parts: int


@dataclass(frozen=True, slots=True)
class _Run:
    """Times of all events, in ns of the monotonic clock and in one order, and counters."""

    produced: Times
    visible: Times
    samples: list[_Sample]
    load: float
    other_cores: float


def middle(runs: list[Latency]) -> Latency:
    """Return the medians of all figures; of the greatest latency, the greatest."""

    def of(name: str) -> float:
        return float(median(getattr(run, name) for run in runs))

    names = [name for name in Latency.__slots__ if name not in {"pace", "max_ms"}]
    return Latency(pace=runs[0].pace, max_ms=max(run.max_ms for run in runs), **{name: of(name) for name in names})


class LatencyPart:
    """Runs at given paces, each with a topic of its own.

    Args:
        place: of the servers.
        seconds: length of a run after its warm-up.
        warm_up_seconds: time at the beginning that doesn't count.
        events: number of different events, which are produced again and again.
    """

    def __init__(self, place: Stage, seconds: float, warm_up_seconds: float, events: int = 200_000) -> None:
        self._place = place
        self._event_count = events
        self._seconds = seconds
        self._warm_up_seconds = warm_up_seconds
        self._runs = 0

    def run(self, pace: Pace) -> Latency:
        """Run the worker at a pace.

        Raises:
            ContenderError: the worker or the producer ended, or an event didn't become visible.
        """
        self._runs += 1
        name = f"latency{self._runs}"
        settings = own_topics(self._place.settings, name, self._place.directory, linger_seconds=pace.linger_seconds)
        bench = Bench(self._place, publish(settings, [], lambda _: None))
        load = load_average()
        with bench.running(WORKER) as (worker, client, _):
            begun, before = time.monotonic(), others_cpu_seconds()
            produced, watch, samples = self._watch(bench, pace, worker, client, self._place.directory / name)
            other_cores = max(0.0, (others_cpu_seconds() - before) / (time.monotonic() - begun))
        visible = np.concatenate(watch.times([len(times) for times in produced]))
        return self._result(pace, _Run(np.concatenate(produced), visible, samples, load, other_cores))

    def _watch(
        self, bench: Bench, pace: Pace, worker: ContenderProcess, client: Client, files: Path
    ) -> tuple[list[Times], Watch, list[_Sample]]:
        """Produce, and watch until all events are visible."""
        events, times = self._events(bench), files.with_suffix(".npz")
        seconds, workload = self._seconds + self._warm_up_seconds, bench.workload
        arguments = [workload.topic, str(workload.partitions), str(pace.rate), str(seconds), str(events), str(times)]
        command = [sys.executable, "-m", "benchmarks.load", *arguments]
        watch, samples = Watch(client), [self._sample(worker, client)]
        bar = self._place.bar(f"latency at {pace.rate:,}/s, linger {pace.linger_seconds:g} s", int(seconds))
        begun = time.monotonic()
        with ContenderProcess(command, bench.environment(files.name), files.with_suffix(".log")) as producer:
            while producer.ended is None:
                worker.check()
                watch.look()
                if time.monotonic_ns() - samples[-1].ns > _SAMPLE_SECONDS * 1e9:
                    samples.append(self._sample(worker, client))
                    bar(int(time.monotonic() - begun))
                time.sleep(_LOOK_SECONDS)
            if producer.ended or not times.exists():
                raise producer.failure(f"ended with exit code {producer.ended}")
        with np.load(times) as arrays:
            produced = [arrays[name] for name in arrays.files]
        self._wait(worker, client, watch, sum(map(len, produced)))
        samples.append(self._sample(worker, client))
        return produced, watch, samples

    def _wait(self, worker: ContenderProcess, client: Client, watch: Watch, events: int) -> None:
        deadline, rows = time.monotonic() + _STALL_SECONDS, -1
        while rows != events:
            if time.monotonic() > deadline or rows > events:
                raise worker.failure(f"stored {rows:,} rows, expected {events:,}")
            worker.check()
            watch.look()
            ((rows,),) = client.execute("SELECT count() FROM ui_events")
            time.sleep(_LOOK_SECONDS)
        while not watch.look():
            worker.check()

    def _events(self, bench: Bench) -> Path:
        file = self._place.directory / "events.pickle"
        if not file.exists():
            family = load_catalog(bench.workload.settings).family(FAMILY)
            prepare(family, bench.workload.partitions, self._event_count, file)
        return file

    def _sample(self, worker: ContenderProcess, client: Client) -> _Sample:
        ((parts, stats_parts),) = client.execute(_BLOCKS)
        server = cpu_seconds(psutil.Process(self._place.stack.clickhouse.pid))
        return _Sample(time.monotonic_ns(), worker.cpu_seconds(), server, parts, stats_parts)

    def _result(self, pace: Pace, run: _Run) -> Latency:
        first, last = run.produced.min() + int(self._warm_up_seconds * 1e9), run.produced.max()
        if not run.visible.all():
            raise ContenderError(f"{pace.name}: {np.count_nonzero(run.visible == 0):,} events never became visible")
        counted = run.produced >= first
        p50, p99, most = np.percentile((run.visible - run.produced)[counted] / 1e6, (50, 99, 100))
        seconds = float(last - first) / 1e9

        def used(name: str) -> float:
            """Growth of a counter in a second."""
            ns, values = [sample.ns for sample in run.samples], [getattr(sample, name) for sample in run.samples]
            return float((np.interp(last, ns, values) - np.interp(first, ns, values)) / seconds)

        return Latency(
            pace,
            p50_ms=float(p50),
            p99_ms=float(p99),
            max_ms=float(most),
            cores=used("worker"),
            server_cores=used("server"),
            parts_per_minute=used("parts") * 60,
            stats_parts_per_minute=used("stats_parts") * 60,
            kept=float(np.count_nonzero(counted) / (pace.rate * seconds)),
            load=run.load,
            other_cores=run.other_cores,
        )
