"""`python -m benchmarks`: run the contenders one after the other, and report."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from benchmarks import report
from benchmarks.contenders import CONTENDERS, PEERS, WORKER, interpreter
from benchmarks.measure import Bench, rounds
from benchmarks.stage import stage
from benchmarks.workload import publish, usual
from pipeline.errors import ChimeraError

_USUAL = [contender.name for contender in (WORKER, *PEERS)]
_DOCS = Path(__file__).parent.parent / "docs" / "benchmarks.md"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--events", default=300_000, show_default=True, type=click.IntRange(min=1), help="Number of ui_events.")
@click.option(
    "--only",
    metavar="NAME",
    multiple=True,
    type=click.Choice([contender.name for contender in CONTENDERS]),
    help=f"Contender to run; may be repeated.  [default: {', '.join(_USUAL)}]",
)
@click.option(
    "--repeat", default=1, show_default=True, type=click.IntRange(min=1), help="Rounds; the median run counts."
)
@click.option("--write-docs", is_flag=True, help="Write the table into docs/benchmarks.md.")
def main(events: int, only: Sequence[str], repeat: int, write_docs: bool) -> None:
    """Measure the worker against its peers: one topic of ui_events, into ClickHouse, one contender at a time.

    Starts a broker and a ClickHouse server of its own and publishes the events once. Each contender stores them in a
    database of its own, and its rows are checked against the published events. The last line of the output is a JSON
    object.

    \b
    Examples:
      python -m benchmarks
      python -m benchmarks --only chimera --only plain_loop --repeat 3
      python -m benchmarks --only chimera --only without_ranges --events 2000000 --repeat 5
      python -m benchmarks --write-docs

    \b
    Exit codes:
      0   every contender stored every event once
      1   a contender didn't
      69  a server or the peers' environment isn't available
      78  a setting is wrong
    """
    chosen = [contender for contender in CONTENDERS if contender.name in (only or _USUAL)]
    for contender in chosen:
        interpreter(contender)  # before the servers start: the first call downloads packages
    with stage() as place:
        bench = Bench(place, publish(place.settings, usual(events), place.bar("publish", events)))
        results = rounds(bench, chosen, repeat)
        machine = report.machine(place.clickhouse_version(), besides=report.peers())
    Console().print(report.rich_table(results), report.cost_of_ranges(results) or "")
    if write_docs:
        text = report.markdown(results, machine, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
        _DOCS.write_text(report.replace_marked(_DOCS.read_text(encoding="utf-8"), text), encoding="utf-8")
    click.echo(report.json_line(results))


if __name__ == "__main__":
    try:
        main(prog_name="python -m benchmarks")
    except ChimeraError as error:
        click.echo(f"benchmarks: {error}", err=True)
        sys.exit(error.exit_code)
