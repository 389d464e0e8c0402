"""Parts of the benchmark, one after the other on the same servers."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from benchmarks.cases import CASES, METADATA, SAMPLE, Workloads
from benchmarks.contenders import ENGINE, WORKER, YARDSTICK, Contender
from benchmarks.figures import USUAL_RATE, Figures, Lengths, longest
from benchmarks.latency import Latency, LatencyPart, Pace, middle
from benchmarks.machine import busy_processes
from benchmarks.measure import Bench, alternating, rounds
from benchmarks.process import ContenderError
from benchmarks.stage import Stage

_BUSY_PROCESSES = 2
_SLOW_RATE = 1_000
_LINGERS = (1.0, 0.1)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of events, seconds and rounds."""

    events: tuple[int, ...] = (300_000, 2_000_000)
    """Lengths of the comparison."""
    worst_events: int = 400_000
    memory_events: int = 5_000_000
    latency_seconds: float = 15.0
    warm_up_seconds: float = 4.0
    settle_seconds: float = 10.0
    """Time from the last row until memory is measured once more."""
    rates: tuple[int, ...] = (USUAL_RATE, _SLOW_RATE)
    """Rates of events for the latency, beside half of the worker's throughput."""
    repeat: int = 3

    def quick(self) -> "Sizes":
        """Sizes to try everything in a few minutes; the figures say little."""
        return Sizes((20_000, 60_000), 20_000, 100_000, 4.0, 2.0, 1.0, self.rates, 1)


@dataclass(slots=True)
class Program:
    """The parts, and what they have measured so far."""

    place: Stage
    sizes: Sizes
    contenders: Sequence[Contender]
    figures: Figures = field(default_factory=Figures)
    workloads: Workloads = field(init=False)

    def __post_init__(self) -> None:
        self.workloads = Workloads(self.place)
        self.figures.failures = self.place.failures

    def compare(self) -> None:
        """Run all contenders, with each number of events."""
        self.figures.quiet = self._lengths(self.contenders)

    def busy(self) -> None:
        """Run the worker, the engine and the yardstick, with processes beside them that compute all the time."""
        self.figures.busy = self._lengths(
            [each for each in self.contenders if each in {WORKER, YARDSTICK, ENGINE}], _BUSY_PROCESSES
        )

    def worst(self) -> None:
        """Run the worker with the sample, and with each case that is worse."""
        benches = {
            case.name: (Bench(self.place, self.workloads.get(case, self.sizes.worst_events)), WORKER) for case in CASES
        }
        self.figures.worst = rounds(benches, self.sizes.repeat)

    def latency(self) -> None:
        """Run the worker at given rates, and at half of what it stored of a backlog."""
        part = LatencyPart(self.place, self.sizes.latency_seconds, self.sizes.warm_up_seconds)
        half = Pace(round(self._throughput() / 2), 1.0, half=True)
        paces = [Pace(rate, linger) for rate in self.sizes.rates for linger in _LINGERS] + [half]
        runs: dict[Pace, list[Latency]] = {pace: [] for pace in paces}
        for number in range(self.sizes.repeat):
            for pace in paces:
                title = f"{pace.name}, {pace.rate:,} events a second, round {number + 1} of {self.sizes.repeat}"
                try:
                    run = part.run(pace)
                except ContenderError as error:
                    self.place.failures.append(f"{title}: {error}")
                    self.place.say(f"{title}: {error}")
                else:
                    runs[pace].append(run)
                    self.place.say(
                        f"{title}: p50 {run.p50_ms:,.0f} ms, p99 {run.p99_ms:,.0f}, max {run.max_ms:,.0f}; "
                        f"load {run.load:.1f}, others {run.other_cores:.2f} cores"
                    )
        self.figures.latency = [middle(found) for found in runs.values() if found]

    def memory(self) -> None:
        """Run the worker with the sample, the worst case, and more events, and look at its memory a while later."""
        for case, events in (
            (SAMPLE, max(self.sizes.events)),
            (METADATA, self.sizes.worst_events),
            (SAMPLE, self.sizes.memory_events),
        ):
            bench = Bench(self.place, self.workloads.get(case, events))
            name = f"{case.name}_{events}"
            found = rounds({name: (bench, WORKER)}, 1, self.sizes.settle_seconds)
            self.figures.memory |= {name: runs.results[0] for name, runs in found.items()}

    def _lengths(self, contenders: Sequence[Contender], busy: int = 0) -> Lengths:
        lengths = {}
        for events in self.sizes.events:
            bench = Bench(self.place, self.workloads.get(SAMPLE, events))  # published before the others begin
            with busy_processes(busy) if busy else nullcontext():
                lengths[events] = alternating(bench, contenders, self.sizes.repeat)
        return lengths

    def _throughput(self) -> float:
        """The worker's rows/s with the most events; measured now, if it hasn't been."""
        runs = longest(self.figures.quiet)
        if WORKER.name not in runs:
            bench = Bench(self.place, self.workloads.get(SAMPLE, max(self.sizes.events)))
            runs = alternating(bench, [WORKER], 1)
        if WORKER.name not in runs:
            raise ContenderError("the worker's throughput is unknown, so half of it is too")
        return runs[WORKER.name].rows_per_s


PARTS: dict[str, Callable[[Program], None]] = {
    "compare": Program.compare,
    "busy": Program.busy,
    "worst": Program.worst,
    "latency": Program.latency,
    "memory": Program.memory,
}
"""Parts by name, in the order in which they run."""
