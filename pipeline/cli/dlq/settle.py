"""`chimera dlq requeue` and `drop`: what becomes of dead letters; shown first, and noted when it is done."""

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
    "found": "had been requeued by a run that broke off",
    "left": "left, because another run has them or broke off less than a minute ago: try again",
    "dropped": "dropped",
}
_all = click.option("--all", "everything", is_flag=True, help="All of them; of --topic, where that is given.")
_execute = click.option("--execute", is_flag=True, help="Do it; otherwise it is only shown what would be done.")


@click.command()
@selecting
@_all
@click.option(
    "--max-attempts",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Leave those that have been rejected so often: a record that nothing was done about would go round for ever.",
)
@_execute
def requeue(*, everything: bool, max_attempts: int, execute: bool, **conditions: Any) -> None:
    """Send the records of dead letters back to the topic they came from: key, value and headers as they were.

    They get the time of requeueing as their timestamp, and the partition that their key has. Each is requeued once,
    also when this is broken off and called again. What is rejected again is a new dead letter; attempts are counted.

    \b
    Examples:
      chimera dlq requeue --reason unknown_schema                       # shows what it would do
      chimera dlq requeue --reason unknown_schema --since 2026-11-24 --execute
      chimera dlq requeue --at chimera.ui_events:3:41200 --execute
      chimera dlq requeue --all --max-attempts 5 --execute

    \b
    Exit codes:
      0   done, or shown; what was left is said
      2   wrong usage
      69  the broker doesn't answer; what was done by then is noted
      70  the broker refuses a record, or lacks a topic; likewise
      78  a setting, topics.yaml or a schema is wrong
    """
    _check_narrowed(conditions, everything=everything)
    settings, found = read_topics(conditions)
    wanted = [(reading, replace(selection, attempts_below=max_attempts)) for reading, selection in found]
    for (reading, selection), (_, meant) in zip(found, wanted, strict=True):
        returning = {(count.reason, count.state): count.letters for count in reading.index.counts(meant)}
        for count in reading.index.counts(selection):
            some = returning.get((count.reason, count.state), 0)
            worn_out = f"rejected {max_attempts} times, or not whole"
            why = "nobody knows where they belong" if count.reason == FOREIGN else worn_out
            left = f", {count.letters - some:,} left: {why}" if some < count.letters else ""
            click.echo(f"{reading.family.topic.name}  {count.reason}  {some:,} to requeue{left}")
    if _agreed(wanted, "to requeue", execute=execute):
        _settle(settings, wanted, Settler.requeue, "Requeueing")


@click.command()
@selecting
@_all
@_execute
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
def drop(*, everything: bool, execute: bool, yes: bool, **conditions: Any) -> None:
    """Note that nobody wants these dead letters: they are neither counted nor requeued any more.

    Kafka can't delete a single record: retention deletes them, with all that is of their age. Until then they are there
    for whoever reads the topic, and `chimera dlq ls --state dropped` counts them.

    \b
    Examples:
      chimera dlq drop --until 2026-11-01                               # shows what it would do
      chimera dlq drop --reason tombstone --topic ui_events --execute
      chimera dlq drop --all --execute --yes

    \b
    Exit codes:
      0   done, or shown
      1   not confirmed
      2   wrong usage, or neither a terminal to ask on nor --yes
      69  the broker doesn't answer; what was done by then is noted
      70  the broker refuses, or lacks a topic; likewise
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
                raise click.UsageError("there is no terminal to ask on: add --yes to drop them")
            click.confirm("Drop them?", abort=True, err=True)
        _settle(settings, wanted, Settler.drop, "Dropping")


def _check_narrowed(conditions: dict[str, Any], *, everything: bool) -> None:
    narrowed = any(conditions[name] for name in ("reasons", "since", "until", "at"))
    if narrowed == everything:
        raise click.UsageError("expected either --reason, --since, --until or --at, or --all")


def _agreed(wanted: Found, what: str, *, execute: bool) -> bool:
    """Whether there is anything to do, and it is to be done."""
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
