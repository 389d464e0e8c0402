"""`chimera dlq requeue` and `drop`: settle dead letters."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from pipeline.cli.dlq.options import Found, read_topics, selecting
from pipeline.cli.progress import progress_bar
from pipeline.config import Settings
from pipeline.dlq.letters import FOREIGN, Letter
from pipeline.dlq.settle import Settler

_OUTCOMES = {
    "requeued": "requeued",
    "found": "already requeued by an interrupted run",
    "left": "left, because another run has claimed them or was interrupted less than a minute ago: try again",
    "dropped": "dropped",
}
_all = click.option("--all", "everything", is_flag=True, help="Select all dead letters, or all of --topic.")
_execute = click.option("--execute", is_flag=True, help="Make the changes; without it, only the plan is shown.")


@click.command()
@selecting
@_all
@click.option(
    "--max-attempts",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Leave records that were rejected this often: they would come back again and again.",
)
@_execute
def requeue(*, everything: bool, max_attempts: int, execute: bool, **conditions: Any) -> None:
    """Send dead letters back to their topics.

    Each record keeps its key, value and headers. Its timestamp is the time of the requeueing, and its key gives the
    partition. Each record is requeued once, even if a run is interrupted and repeated. A record that is rejected again
    becomes a new dead letter; its attempts are counted.

    \b
    Examples:
      chimera dlq requeue --reason unknown_schema  # shows the plan
      chimera dlq requeue --reason unknown_schema --since 2026-11-24 --execute
      chimera dlq requeue --at chimera.ui_events:3:41200 --execute
      chimera dlq requeue --all --max-attempts 5 --execute

    \b
    Exit codes:
      0   requeued, or the plan was shown; the output names what was left
      2   the options are wrong
      69  the broker doesn't answer; the work done so far is kept
      70  the broker refuses a record, or a topic is missing; the same holds
      78  a setting, topics.yaml or a schema is wrong
    """
    _check_narrowed(conditions, everything=everything)
    settings, found = read_topics(conditions)
    wanted = [(reading, replace(selection, attempts_below=max_attempts)) for reading, selection in found]
    for (reading, selection), (_, meant) in zip(found, wanted, strict=True):
        returning = {(count.reason, count.state): count.letters for count in reading.index.counts(meant)}
        for count in reading.index.counts(selection):
            some = returning.get((count.reason, count.state), 0)
            worn_out = f"rejected {max_attempts} times, or incomplete"
            why = "their topic is unknown" if count.reason == FOREIGN else worn_out
            left = f", {count.letters - some:,} left: {why}" if some < count.letters else ""
            click.echo(f"{reading.family.topic.name}  {count.reason}  {some:,} to requeue{left}")
    if _agreed(wanted, "to requeue", execute=execute):
        _settle(settings, wanted, Settler.requeue, "Requeueing")


@click.command()
@selecting
@_all
@_execute
@click.option("-y", "--yes", is_flag=True, help="Drop without asking.")
def drop(*, everything: bool, execute: bool, yes: bool, **conditions: Any) -> None:
    """Mark dead letters as dropped.

    Dropped dead letters are neither counted nor requeued. Kafka can't delete single records, so they stay in the topic
    until retention deletes them. Until then `chimera dlq ls --state dropped` counts them.

    \b
    Examples:
      chimera dlq drop --until 2026-11-01  # shows the plan
      chimera dlq drop --reason tombstone --topic ui_events --execute
      chimera dlq drop --all --execute --yes

    \b
    Exit codes:
      0   dropped, or the plan was shown
      1   not confirmed
      2   the options are wrong, or neither a terminal nor --yes
      69  the broker doesn't answer; the work done so far is kept
      70  the broker refuses, or a topic is missing; the same holds
      78  a setting, topics.yaml or a schema is wrong
    """
    _check_narrowed(conditions, everything=everything)
    settings, wanted = read_topics(conditions)
    for reading, selection in wanted:
        for count in reading.index.counts(selection):
            click.echo(f"{reading.family.topic.name}  {count.reason}  {count.letters:,} to drop")
    if _agreed(wanted, "to drop", execute=execute):
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("there is no terminal for a confirmation: add --yes to drop them")
            click.confirm("Drop them?", abort=True, err=True)
        _settle(settings, wanted, Settler.drop, "Dropping")


def _check_narrowed(conditions: dict[str, Any], *, everything: bool) -> None:
    narrowed = any(conditions[name] for name in ("reasons", "since", "until", "at"))
    if narrowed == everything:
        raise click.UsageError("expected either --reason, --since, --until or --at, or --all")


def _agreed(wanted: Found, what: str, *, execute: bool) -> bool:
    """Print the total; return True if it is above 0 and --execute is given."""
    total = sum(reading.index.count(selection) for reading, selection in wanted)
    click.echo(f"{total:,} {what}" + ("" if execute or not total else "; nothing was done: add --execute"))
    return execute and total > 0


def _settle(settings: Settings, wanted: Found, work: Callable[[Settler, list[Letter]], int], what: str) -> None:
    outcome = Counter[str]()
    try:
        with progress_bar() as progress:
            task = progress.add_task(what, total=sum(reading.index.count(selection) for reading, selection in wanted))
            for reading, selection in wanted:
                settler = Settler(settings.kafka, reading, outcome)
                for letters in reading.pages(selection):
                    while letters:
                        done = work(settler, letters)
                        del letters[:done]
                        progress.advance(task, done)
    finally:
        for key, words in _OUTCOMES.items():
            if outcome[key]:
                click.echo(f"{outcome[key]:,} {words}")
