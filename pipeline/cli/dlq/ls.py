"""`chimera dlq ls`: count dead letters."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import click
import orjson

from pipeline.cli.columns import print_columns
from pipeline.cli.dlq.options import STATES, as_json_option, in_state, read_topics, selecting
from pipeline.dlq.fields import as_text
from pipeline.dlq.index import Count


@click.command()
@selecting
@in_state
@as_json_option
def ls(*, states: Sequence[str], as_json: bool, **conditions: Any) -> None:
    """Count dead letters by topic, reason and state.

    The output has the times of the first and the last dead letter. A dead letter that was written twice counts once;
    `copies` counts the repetitions.

    \b
    Examples:
      chimera dlq ls
      chimera dlq ls --topic ui_events --since 2026-11-24T08:00Z --json
      chimera dlq ls --state requeued --state dropped

    \b
    Exit codes:
      0   counted, even if there are no dead letters
      2   the options are wrong
      69  the broker doesn't answer
      70  the broker refuses, or a topic is missing
      78  a setting, topics.yaml or a schema is wrong
    """
    _, found = read_topics(conditions)
    counts = [
        (reading.family.topic.name, count)
        for reading, selection in found
        for count in reading.index.counts(replace(selection, states=frozenset(STATES)))
    ]
    shown = [(topic, count) for topic, count in counts if count.state in states]
    if as_json:
        for topic, count in shown:
            times = {"first": as_text(count.first), "last": as_text(count.last)}
            click.echo(orjson.dumps({"topic": topic, **asdict(count), **times}))
        return
    heads = ("topic", "reason", "state", "letters", "copies", "first", "last")
    print_columns([heads, *(_row(topic, count) for topic, count in shown)])
    totals = Counter[str]()
    for _, count in counts:
        totals[count.state] += count.letters
    click.echo(", ".join(f"{totals[state]:,} {state}" for state in STATES))


def _row(topic: str, count: Count) -> tuple[str, ...]:
    numbers = (f"{count.letters:,}", f"{count.copies:,}")
    return topic, count.reason, count.state, *numbers, as_text(count.first), as_text(count.last)
