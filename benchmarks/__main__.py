"""`python -m benchmarks`: run the parts one after the other, and report."""

import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks import report
from benchmarks.contenders import CONTENDERS, USUAL, Contender
from benchmarks.figures import Figures, json_line
from benchmarks.machine import machine
from benchmarks.parts import PARTS, Program, Sizes
from benchmarks.runtimes import prepared
from benchmarks.stage import stage
from pipeline.errors import ChimeraError, UnavailableError

_DOCS = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_SIZES = Sizes()
_INTERRUPTED = 130
_WIDTH = 140
_COUNT = click.IntRange(min=1)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--part",
    "parts",
    metavar="PART",
    multiple=True,
    type=click.Choice(list(PARTS)),
    help=f"Part to run; may be repeated.  [default: {', '.join(PARTS)}; with --only, compare]",
)
@click.option(
    "--only",
    metavar="NAME",
    multiple=True,
    type=click.Choice([contender.name for contender in CONTENDERS]),
    help=f"Contender to run; may be repeated.  [default: {', '.join(contender.name for contender in USUAL)}]",
)
@click.option(
    "--events",
    metavar="NUMBER",
    multiple=True,
    type=_COUNT,
    default=_SIZES.events,
    help="ui_events of the comparison; may be repeated.  [default: 300000, 2000000]",
)
@click.option("--repeat", default=_SIZES.repeat, show_default=True, type=_COUNT, help="Rounds; medians count.")
@click.option("--worst-events", default=_SIZES.worst_events, show_default=True, type=_COUNT, help="Of each worst case.")
@click.option("--memory-events", default=_SIZES.memory_events, show_default=True, type=_COUNT, help="Of the long run.")
@click.option(
    "--latency-seconds",
    default=_SIZES.latency_seconds,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds of a run at a rate, after its warm-up.",
)
@click.option(
    "--rate",
    "rates",
    metavar="NUMBER",
    multiple=True,
    type=_COUNT,
    default=_SIZES.rates,
    help="Events a second of the latency; may be repeated.  [default: 20000, 1000]",
)
@click.option("--quick", is_flag=True, help="Try everything, small: one round, and figures that say little.")
@click.option("--write-docs", is_flag=True, help="Write the tables into docs/benchmarks.md.")
def main(*, parts: Sequence[str], only: Sequence[str], quick: bool, write_docs: bool, **sizes: Any) -> None:
    """Measure the worker beside its peers and a yardstick: topics of ui_events, into ClickHouse, one at a time.

    Starts a broker and a ClickHouse server of its own. Each contender reads the same topic, and stores it in a database
    of its own; the rows are checked against the published events. The last line of the output is a JSON object.

    \b
    compare  all contenders, with few and with many events, in alternating rounds
    busy     the worker, the engine and the yardstick, with two processes beside that compute all the time
    worst    the worker with workloads that are worse than the sample in one respect each
    latency  time from produce to visible at steady rates, the worker's CPU, and parts per minute
    memory   resident memory with the sample, the worst case, and many more events

    \b
    Examples:
      python -m benchmarks --quick
      python -m benchmarks --only chimera --only plain_loop --events 300000
      python -m benchmarks --only chimera --only without_ranges --events 2000000 --repeat 5
      python -m benchmarks --part latency --latency-seconds 30 --rate 20000
      python -m benchmarks --write-docs

    \b
    Exit codes:
      0    every contender stored every event once
      1    a contender didn't
      69   a server or the peers' environment isn't available
      78   a setting is wrong
      130  interrupted
    """
    names = [name for name in PARTS if name in (parts or (["compare"] if only else PARTS))]
    contenders, skipped = _contenders(only)  # before the servers start: the first call downloads packages
    made = _SIZES.quick() if quick else replace(_SIZES, **sizes)
    with stage() as place:
        program = Program(place, made, contenders, Figures(skipped=skipped))
        for name in names:
            PARTS[name](program)
        files = f"; the servers' files were in {place.directory.parent}"
        about = machine(place.clickhouse_version(), besides=report.peers() + files)
    _report(program.figures, about, write_docs=write_docs)
    sys.exit(1 if program.figures.failures else 0)


def _contenders(only: Sequence[str]) -> tuple[list[Contender], dict[str, str]]:
    """The chosen contenders, or the usual ones, and the reasons of those that are skipped."""
    names = only or [usual.name for usual in USUAL]
    contenders, skipped = prepared([each for each in CONTENDERS if each.name in names])
    reasons = [f"{name}: skipped, {reason}" for name, reason in skipped.items()]
    if skipped.keys() & set(only):
        raise UnavailableError("; ".join(reasons))
    for reason in reasons:
        click.echo(reason, err=True)
    return contenders, skipped


def _report(figures: Figures, about: str, *, write_docs: bool) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)  # a log has no width of its own
    for sheet in report.sheets(figures):
        console.print(sheet.rich())
    for remark in report.remarks(figures):
        click.echo(remark)
    if write_docs:
        text = report.markdown(figures, about, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
        _DOCS.write_text(report.replace_marked(_DOCS.read_text(encoding="utf-8"), text), encoding="utf-8")
    click.echo(json_line(figures))


def _interrupt(number: int, _frame: object) -> None:
    """Raise KeyboardInterrupt once; a second Ctrl-C doesn't disturb the end of the servers."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _interrupt)
    try:
        main(prog_name="python -m benchmarks", standalone_mode=False)
    except ChimeraError as error:
        click.echo(f"benchmarks: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("benchmarks: interrupted; servers and contenders are stopped", err=True)
        sys.exit(_INTERRUPTED)
