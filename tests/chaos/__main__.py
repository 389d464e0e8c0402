"""`python -m chaos`: inflict the faults one after the other, and report what was lost and what repeated."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import mkdtemp

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from chaos.faults import FAULTS, Fault
from chaos.suite import Outcome, inflict
from pipeline.devstack import Stack

_LISTED = 20


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--share", default=1.0, show_default=True, type=click.FloatRange(0.01, 10), help="Of the runs of each fault."
)
@click.option("--seed", default=1, show_default=True, help="Of events, passings and pauses.")
@click.option("--only", metavar="TEXT", multiple=True, help="Faults with this in their name, and others so named.")
def main(share: float, seed: int, only: tuple[str, ...]) -> None:
    """Inflict every fault under load, and compare what was produced with what is stored, record by record.

    The table and, as its last line, one JSON object go to standard output; progress goes to standard error. Logs are
    kept where the last line of the progress says when something was lost or repeated.

    \b
    Examples:
      python -m chaos                          all runs, about half an hour
      python -m chaos --share 0.1              a tenth of the runs of each fault
      python -m chaos --only 'kill -9' --seed 7

    \b
    Exit codes:
      0  every event is where it belongs, once
      1  something was lost or repeated, or the pipeline got stuck
    """
    directory = Path(mkdtemp(prefix="chimera-chaos-"))
    faults = [fault for fault in FAULTS if not only or any(text in fault.name for text in only)]
    outcomes = list(_inflict_all([(fault, max(1, round(fault.runs * share))) for fault in faults], seed, directory))
    Console().print(_table(outcomes))
    for outcome in outcomes:
        for line in _failures(outcome):
            click.echo(line)
    total = {
        "runs": sum(outcome.runs for outcome in outcomes),
        "events": sum(outcome.verdict.events for outcome in outcomes),
        "lost": sum(len(outcome.verdict.lost) for outcome in outcomes),
        "duplicated": sum(len(outcome.verdict.duplicated) for outcome in outcomes),
    }
    sound = all(outcome.sound for outcome in outcomes)
    if not sound:
        click.echo(f"logs: {directory}", err=True)
    click.echo(orjson.dumps(total))
    sys.exit(0 if sound else 1)


def _inflict_all(faults: Sequence[tuple[Fault, int]], seed: int, directory: Path) -> Iterator[Outcome]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, Stack(directory / "stack") as stack:
        task = progress.add_task("", total=sum(runs for _, runs in faults))
        for fault, runs in faults:
            progress.update(task, description=fault.name)
            outcome = inflict(
                fault, runs, seed, stack=stack, directory=directory, advance=lambda: progress.advance(task)
            )
            progress.console.print(f"{fault.name}: {'as it should be' if outcome.sound else 'NOT as it should be'}")
            yield outcome


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("fault")
    for column in ("runs", "events", "lost", "duplicated"):
        table.add_column(column, justify="right")
    for outcome in outcomes:
        verdict = outcome.verdict
        numbers = (outcome.runs, verdict.events, len(verdict.lost), len(verdict.duplicated))
        table.add_row(outcome.fault, *(f"{number:,}" for number in numbers))
    return table


def _failures(outcome: Outcome) -> Iterator[str]:
    """What went wrong, record by record; of many of a kind, the first."""
    verdict = outcome.verdict
    if outcome.stuck:
        yield f"{outcome.fault}: stuck: {outcome.stuck}"
    for what, places in (("lost", verdict.lost), ("duplicated", verdict.duplicated), ("unknown", verdict.strangers)):
        yield from (f"{outcome.fault}: {what}: {place}" for place in places[:_LISTED])
        if (more := len(places) - _LISTED) > 0:
            yield f"{outcome.fault}: {what}: {more} more"


if __name__ == "__main__":
    main()
