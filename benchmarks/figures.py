"""Figures of a whole run of the benchmark, and its line of JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from benchmarks.cases import CASES, SAMPLE
from benchmarks.contenders import ENGINE, PEERS, WITHOUT_CORE, WORKER, YARDSTICK
from benchmarks.latency import Latency
from benchmarks.results import Figure, Result, Runs, Spread, ratio

Lengths = dict[int, dict[str, Runs]]
"""Runs by number of events and contender."""

USUAL_RATE = 20_000


@dataclass(slots=True)
class Figures:
    """All parts; one that didn't run is empty."""

    quiet: Lengths = field(default_factory=dict)
    busy: Lengths = field(default_factory=dict)
    """With busy processes beside."""
    worst: dict[str, Runs] = field(default_factory=dict)
    """The worker's runs by case."""
    latency: list[Latency] = field(default_factory=list)
    memory: dict[str, Result] = field(default_factory=dict)
    """The worker's run by workload, with its memory a while later."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Reasons by contender."""
    failures: list[str] = field(default_factory=list)

    def results(self) -> list[Result]:
        """All runs of contenders and cases."""
        lengths = [*self.quiet.values(), *self.busy.values(), self.worst]
        runs = [result for contenders in lengths for each in contenders.values() for result in each.results]
        return [*runs, *self.memory.values()]

    @property
    def loads(self) -> list[float]:
        """Load averages of the machine before the runs."""
        return [result.load for result in self.results()] + [each.load for each in self.latency]

    @property
    def others(self) -> list[float]:
        """Cores that processes beside the benchmark used in the runs on a quiet machine."""
        beside = {id(result) for each in self.busy.values() for runs in each.values() for result in runs.results}
        runs = [result.other_cores for result in self.results() if id(result) not in beside]
        return runs + [each.other_cores for each in self.latency]


def rows_per_s(result: Result) -> float:
    """Throughput in rows per second."""
    return result.rows_per_s


def cpu_us(result: Result) -> float | None:
    """CPU time of the contender for one row, in µs."""
    return result.cpu_us_per_row


def server_us(result: Result) -> float:
    """CPU time of ClickHouse for one row, in µs."""
    return result.server_cpu_us_per_row


def against(runs: Mapping[str, Runs], other: str, figure: Figure = rows_per_s) -> Spread | None:
    """Ratio of the worker's figure to another contender's; None if one of them didn't run."""
    if not {WORKER.name, other} <= runs.keys():
        return None
    return ratio(runs[WORKER.name], runs[other], figure)


def ratios(runs: Mapping[str, Runs]) -> dict[str, float]:
    """Ratio of the worker's throughput to that of each peer that ran."""
    found = {peer.name: against(runs, peer.name) for peer in PEERS}
    return {name: round(spread.median, 2) for name, spread in found.items() if spread}


def core_against(runs: Mapping[str, Runs], other: str) -> Spread | None:
    """CPU time of the worker's numpy path ÷ another contender's; None if one of them didn't run."""
    if not {WITHOUT_CORE.name, other} <= runs.keys():
        return None
    return ratio(runs[WITHOUT_CORE.name], runs[other], cpu_us)


def case_cpu(worst: Mapping[str, Runs], case: str) -> Spread | None:
    """CPU time for an event of a case ÷ the sample's; None if one of them didn't run."""
    if not {SAMPLE.name, case} <= worst.keys():
        return None
    return ratio(worst[case], worst[SAMPLE.name], cpu_us)


def at_pace(latency: list[Latency], rate: int, linger_seconds: float) -> Latency | None:
    """The runs at a fixed rate; None if there were none."""
    paces = (each for each in latency if not each.pace.half)
    return next((each for each in paces if (each.pace.rate, each.pace.linger_seconds) == (rate, linger_seconds)), None)


def shortest(lengths: Lengths) -> dict[str, Runs]:
    """The runs with the fewest events."""
    return lengths[min(lengths)] if lengths else {}


def longest(lengths: Lengths) -> dict[str, Runs]:
    """The runs with the most events."""
    return lengths[max(lengths)] if lengths else {}


def json_line(figures: Figures) -> str:
    """JSON object with all figures; one that wasn't measured is null, and a ratio is left out."""
    short, long = shortest(figures.quiet), longest(figures.quiet)
    worker = short.get(WORKER.name)
    usual = at_pace(figures.latency, USUAL_RATE, 1.0)
    return orjson.dumps(
        {
            "rows_per_s": worker and round(worker.rows_per_s),
            "cpu_us_per_row": _rounded(worker.cpu_us_per_row if worker else None),
            "rss_mb": _rounded(worker.rss_mb if worker else None, 1),
            "ratio": ratios(short),
            "events": min(figures.quiet, default=None),
            "ratio_long": ratios(long),
            "events_long": max(figures.quiet, default=None),
            "ratio_busy": [
                {"events": events, **ratios(runs)} for events, runs in sorted(figures.busy.items()) if ratios(runs)
            ],
            "yardstick_rows": _median(against(long, YARDSTICK.name)),
            "yardstick_cpu": _median(against(long, YARDSTICK.name, cpu_us)),
            "yardstick_server_cpu": _median(against(long, YARDSTICK.name, server_us)),
            "numpy_yardstick_cpu": _median(core_against(long, YARDSTICK.name)),
            "latency_ms": {each.pace.name: _latency(each) for each in figures.latency},
            "cores_at_20000_per_s": _rounded(usual.cores if usual else None, 3),
            "parts_per_minute": {each.pace.name: round(each.parts_per_minute) for each in figures.latency},
            "worst": {case.name: _case(figures, case.name) for case in CASES} if figures.worst else {},
            "memory_mb": {
                name: {"peak": _rounded(each.rss_mb, 1), "later": _rounded(each.later_rss_mb, 1)}
                for name, each in figures.memory.items()
            },
            "load": [round(min(figures.loads), 1), round(max(figures.loads), 1)] if figures.loads else None,
            "skipped": figures.skipped,
            "failures": figures.failures,
        }
    ).decode()


def engine_ratios(figures: Figures) -> list[tuple[str, Spread]]:
    """Ratios to ClickHouse's Kafka engine, of both lengths, on a quiet machine and on a busy one."""
    found = []
    for beside, lengths in (("quiet", figures.quiet), ("busy", figures.busy)):
        for events, runs in sorted(lengths.items()):
            if spread := against(runs, ENGINE.name):
                found.append((f"{events:,} {beside}", spread))
    return found


def _case(figures: Figures, name: str) -> dict[str, Any] | None:
    """Figures of a case; None if it failed."""
    if (runs := figures.worst.get(name)) is None:
        return None
    return {
        "rows_per_s": round(runs.rows_per_s),
        "cpu_us": _rounded(runs.cpu_us_per_row),
        "cpu": _median(case_cpu(figures.worst, name)),
        "rss_mb": _rounded(runs.rss_mb, 1),
    }


def _latency(each: Latency) -> dict[str, float]:
    return {"p50": round(each.p50_ms), "p99": round(each.p99_ms), "max": round(each.max_ms)}


def _median(spread: Spread | None) -> float | None:
    return round(spread.median, 2) if spread else None


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)
