"""Figures that were asked for, beside the measured ones. A figure that wasn't measured is a dash."""

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.cases import AGENTS, METADATA, SAMPLE
from benchmarks.contenders import YARDSTICK
from benchmarks.figures import (
    USUAL_RATE,
    Figures,
    against,
    at_pace,
    case_cpu,
    core_against,
    cpu_us,
    engine_ratios,
    longest,
    ratios,
    server_us,
)
from benchmarks.results import Spread

_CPU_BEFORE = 5.3  # the worker's CPU ÷ the yardstick's, before the numpy path and the compiled core


class Asked(NamedTuple):
    """One line of the table."""

    title: str
    before: str
    asked: str
    measured: Callable[[Figures], str]


def rows(figures: Figures) -> list[tuple[str, str, str, str]]:
    """Lines of the table: title, value before, asked value, measured value."""
    return [(each.title, each.before, each.asked, each.measured(figures) or "-") for each in _ASKED]


def _rows(figures: Figures) -> str:
    return _ratio(against(longest(figures.quiet), YARDSTICK.name))


def _cpu(figures: Figures) -> str:
    return _ratio(against(longest(figures.quiet), YARDSTICK.name, cpu_us))


def _server(figures: Figures) -> str:
    return _ratio(against(longest(figures.quiet), YARDSTICK.name, server_us))


def _engine(figures: Figures) -> str:
    return "; ".join(f"{title} {spread.median:.2f}" for title, spread in engine_ratios(figures))


def _peers(figures: Figures) -> str:
    names = ("stock_faust", "plain_loop", "bytewax", "quix")
    lines = [
        f"{events:,}: {' / '.join(f'{ratios(runs)[name]:.1f}' if name in ratios(runs) else '-' for name in names)}"
        for events, runs in sorted(figures.quiet.items())
        if ratios(runs)
    ]
    return "; ".join(lines)


def _numpy(figures: Figures) -> str:
    spread = core_against(longest(figures.quiet), YARDSTICK.name)
    return f"{spread.median / _CPU_BEFORE:.2f}" if spread else ""


def _p99(figures: Figures) -> str:
    found = [at_pace(figures.latency, USUAL_RATE, linger) for linger in (1.0, 0.1)]
    return " / ".join(f"{each.p99_ms / 1000:.2f} s" if each else "-" for each in found) if any(found) else ""


def _cores(figures: Figures) -> str:
    found = at_pace(figures.latency, USUAL_RATE, 1.0)
    return f"{found.cores * 100:.0f} %" if found else ""


def _distinct(figures: Figures) -> str:
    found = [case_cpu(figures.worst, case.name) for case in (METADATA, AGENTS)]
    return " / ".join(f"{each.median:.2f}" if each else "-" for each in found) if any(found) else ""


def _memory(figures: Figures) -> str:
    sample = [runs for name, runs in figures.memory.items() if name.startswith(SAMPLE.name)]
    worst = [runs.rss_mb for runs in figures.worst.values() if runs.rss_mb] + [
        each.rss_mb for each in figures.memory.values() if each.rss_mb
    ]
    if len(sample) < 2 or not worst:
        return ""
    return f"{sample[0].rss_mb:.0f} / {max(worst):.0f} / {sample[1].rss_mb:.0f}"


def _ratio(spread: Spread | None) -> str:
    return f"{spread.median:.2f} ({spread.least:.2f} to {spread.greatest:.2f})" if spread else ""


_ASKED = (
    Asked("rows/s ÷ the yardstick's", "0.33", "at least 0.8", _rows),
    Asked("worker's CPU ÷ the yardstick's", "5.3", "at most 1.8", _cpu),
    Asked("server's CPU for a row ÷ the yardstick's", "1.8", "at most 1.15", _server),
    Asked("rows/s ÷ ClickHouse's Kafka engine, quiet and busy", "0.7 to 1.6", "at least 3", _engine),
    Asked("÷ Faust / plain loop / Bytewax / Quix", "15 / 1.9 / 2.7 / 3.6", "at least 40 / 5 / 7 / 9", _peers),
    Asked("numpy path alone, CPU ÷ the CPU before", "1", "at most 0.6", _numpy),
    Asked("produce to visible at 20,000/s, linger 1 s / 0.1 s, p99", "1.5 s / 1.9 s", "at most 1.25 s / 0.35 s", _p99),
    Asked("CPU of a core at 20,000 events/s", "56 %", "at most 15 %", _cores),
    Asked("distinct metadata / distinct agents, CPU ÷ the sample's", "2 to 4", "at most 2", _distinct),
    Asked(
        "resident MB: sample / worst case / 5,000,000 events", "386 / 978 / flat", "at most 400 / 450 / flat", _memory
    ),
)
