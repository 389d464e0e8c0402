"""`python -m benchmarks.rollup`: check the rows of session_stats and measure their cost."""

import shlex
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import click
from rich.console import Console

from benchmarks.contenders import WITHOUT_ROLLUP, WORKER
from benchmarks.machine import machine
from benchmarks.measure import Bench, alternating
from benchmarks.report import replace_marked
from benchmarks.rollup import exact, recovery
from benchmarks.rollup.report import MARKERS, Figures, json_line, markdown, sentences
from benchmarks.rollup.workload import Shape, closing, shuffled
from benchmarks.stage import Stage, stage
from benchmarks.workload import publish
from pipeline.errors import ChimeraError

_PARTS = ("exactness", "cost", "state")
_DAY_HOURS = 24
_DOCS = Path(__file__).parent.parent.parent / "docs" / "benchmarks.md"

_COUNT = click.IntRange(min=1)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--events", default=1_000_000, show_default=True, type=_COUNT, help="Events of the day that is compared.")
@click.option("--sessions", default=50_000, show_default=True, type=_COUNT, help="Sessions of the events.")
@click.option("--busy-events", default=2_000_000, show_default=True, type=_COUNT, help="Events to measure the cost at.")
@click.option("--busy-hours", default=2, show_default=True, type=_COUNT, help="Hours of the busy events.")
@click.option("--repeat", default=5, show_default=True, type=_COUNT, help="Rounds of the cost; the median run counts.")
@click.option("--windows", default=1_000_000, show_default=True, type=_COUNT, help="Open windows at the kill.")
@click.option("--only", metavar="PART", multiple=True, type=click.Choice(_PARTS), help=f"One of {', '.join(_PARTS)}.")
@click.option("--write-docs", is_flag=True, help="Write the results into docs/benchmarks.md.")
def main(*, only: Sequence[str], write_docs: bool, repeat: int, windows: int, **sizes: int) -> None:
    """Measure session_stats on a broker and a ClickHouse server of its own.

    \b
    exactness  a day of events, shuffled within the grace, through the worker; every row is compared with SQL
    cost       the worker's rows/s with all sessions open, and without session_stats, in alternating rounds
    state      memory of a worker with very many open windows, and the time to restore them after kill -9

    The last line of the output is a JSON object; a part that didn't run is null in it.

    \b
    Examples:
      python -m benchmarks.rollup --write-docs
      python -m benchmarks.rollup --events 100000 --sessions 5000 --only exactness
      python -m benchmarks.rollup --only cost --busy-events 1000000 --busy-hours 24

    \b
    Exit codes:
      0   measured, and no row differs
      1   a row differs, or a worker ended or stalled
      69  a server isn't available
      78  a setting is wrong
    """
    day = Shape(sizes["events"], sizes["sessions"], _DAY_HOURS)
    figures = Figures(day, busy=Shape(sizes["busy_events"], sizes["sessions"], sizes["busy_hours"]))
    server = ""
    for part in only or _PARTS:
        server = _measure(part, figures, repeat, windows)
    Console().print(*sentences(figures), sep="\n")
    if write_docs:
        text = markdown(figures, machine(server), shlex.join(["python", "-m", "benchmarks.rollup", *sys.argv[1:]]))
        _DOCS.write_text(replace_marked(_DOCS.read_text(encoding="utf-8"), text, MARKERS), encoding="utf-8")
    click.echo(json_line(figures))
    sys.exit(1 if figures.compared and figures.compared.found else 0)


def _measure(part: str, figures: Figures, repeat: int, windows: int) -> str:
    """Run one part, put its result into `figures`, and return the version of the ClickHouse server."""
    with stage() as place:  # servers of its own for each part: all parts use the same topic
        if part == "exactness":
            figures.compared = exact.compare(_filled(place, figures.day), figures.day)
        elif part == "cost":
            figures.cost = alternating(_filled(place, figures.busy), [WORKER, WITHOUT_ROLLUP], repeat)
        else:
            figures.recovery = recovery.measure(place, windows)
        return place.clickhouse_version()


def _filled(place: Stage, shape: Shape) -> Bench:
    """Publish these events, and later ones that close their hours."""
    events = chain(shuffled(shape, place.settings), closing(shape, place.settings))
    return Bench(place, publish(place.settings, events, place.bar("publish", shape.events)))


if __name__ == "__main__":
    try:
        main(prog_name="python -m benchmarks.rollup")
    except ChimeraError as error:
        click.echo(f"benchmarks: {error}", err=True)
        sys.exit(error.exit_code)
