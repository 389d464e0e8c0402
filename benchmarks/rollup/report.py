"""Results of the rollup benchmark, as one line of JSON and as text for docs/benchmarks.md."""

from dataclasses import dataclass
from textwrap import fill

import orjson

from benchmarks.contenders import WITHOUT_ROLLUP, WORKER
from benchmarks.results import Runs
from benchmarks.rollup.recovery import Outcome
from benchmarks.rollup.workload import Shape
from pipeline.rollup.verify import Report

MARKERS = "<!-- rollup: begin -->", "<!-- rollup: end -->"

_WIDTH = 120


@dataclass(slots=True)
class Figures:
    """Figures of a run; a part that didn't run is None."""

    day: Shape
    """Events of the comparison."""
    busy: Shape
    """Events of the cost measurement."""
    compared: Report | None = None
    cost: dict[str, Runs] | None = None
    recovery: Outcome | None = None


def json_line(figures: Figures) -> str:
    """JSON object with the figures; a part that didn't run has nulls."""
    compared, cost, recovery = figures.compared, figures.cost, figures.recovery
    return orjson.dumps(
        {
            "events": figures.day.events,
            "sessions": figures.day.sessions,
            "rows": compared and compared.rows,
            "differing": compared and compared.found.total(),
            "rows_per_s_without": cost and round(cost[WITHOUT_ROLLUP.name].rows_per_s),
            "rows_per_s_with": cost and round(cost[WORKER.name].rows_per_s),
            "state_mb": recovery and round(recovery.rss_bytes / 1e6, 1),
            "windows": recovery and recovery.windows,
            "recovery_seconds": recovery and round(recovery.seconds, 1),
        }
    ).decode()


def sentences(figures: Figures) -> list[str]:
    """Sentences about the results, one string for each part that ran."""
    parts = []
    if figures.compared:
        parts.append(_exactness(figures.day, figures.compared))
    if figures.cost:
        parts.append(_cost(figures.busy, figures.cost))
    if figures.recovery:
        parts.append(_recovery(figures.recovery))
    return parts


def markdown(figures: Figures, machine: str, command: str) -> str:
    """Text for the docs: the machine, the command, and the parts as a list."""
    listed = [fill(part, _WIDTH, initial_indent="- ", subsequent_indent="  ") for part in sentences(figures)]
    return "\n".join([machine, "", f"`{command}`", "", *listed])


def _exactness(shape: Shape, compared: Report) -> str:
    return (
        f"**Exactness.** {shape.events:,} events of {shape.sessions:,} sessions over {shape.hours} hours, "
        f"shuffled within the grace: {compared.rows:,} rows of session_stats compared with SQL, "
        f"{compared.found.total():,} differ."
    )


def _cost(shape: Shape, cost: dict[str, Runs]) -> str:
    with_it, without = cost[WORKER.name], cost[WITHOUT_ROLLUP.name]
    return (
        f"**Cost.** {shape.events:,} events of {shape.sessions:,} sessions over {shape.hours} "
        f"hours: {with_it.rows_per_s:,.0f} rows/s with session_stats and {without.rows_per_s:,.0f} without, "
        f"{with_it.rows_per_s / without.rows_per_s:.1%}. CPU time of an event: {with_it.cpu_us_per_row or 0:.2f} and "
        f"{without.cpu_us_per_row or 0:.2f} µs of the worker, {with_it.server_cpu_us_per_row:.2f} and "
        f"{without.server_cpu_us_per_row:.2f} µs of ClickHouse."
    )


def _recovery(outcome: Outcome) -> str:
    rss, peak, state, packed = (
        f"{size / 1e6:.0f} MB"
        for size in (outcome.rss_bytes, outcome.peak_rss_bytes, outcome.state_bytes, outcome.packed_bytes)
    )
    return (
        f"**State.** {outcome.windows:,} open windows: the worker that holds them has {rss}, and never had more than "
        f"{peak}. The state itself is {state} as columns, {packed} in the state topic. After a kill -9, the next "
        f"worker had all of it {outcome.seconds:.1f} s after its start, {outcome.replayed:,} records replayed."
    )
