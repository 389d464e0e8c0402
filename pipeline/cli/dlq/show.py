"""`chimera dlq show`: what is in dead letters."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click
import orjson

from pipeline.cli.dlq.options import as_json_option, in_state, read_topics, selecting
from pipeline.dlq.content import Reader
from pipeline.dlq.show import described, lines
from pipeline.kafka.registry import SchemaRegistry


@click.command()
@selecting
@in_state
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="At most so many.")
@click.option("--unmask", is_flag=True, help="Show what is in them: keys, values, headers.")
@as_json_option
def show(*, states: Sequence[str], limit: int, unmask: bool, as_json: bool, **conditions: Any) -> None:
    """Show dead letters, read as far as they can be: field by field, up to what is wrong.

    Of keys, values, headers and their names only type and length are shown, of ids too, unless --unmask is given: what
    that shows may be personal data.

    \b
    Examples:
      chimera dlq show --topic ui_events --limit 1
      chimera dlq show --at chimera.ui_events:3:41200 --unmask
      chimera dlq show --reason too_long --json

    \b
    Exit codes:
      0   shown, also when there is none
      2   wrong usage
      69  the broker doesn't answer
      70  the broker refuses, or lacks a topic
      78  a setting, topics.yaml or a schema is wrong
    """
    settings, found = read_topics(conditions)
    registry = SchemaRegistry(settings.registry) if settings.registry.url else None
    for reading, selection in found:
        reader = Reader(reading.family, registry)
        for letters in reading.pages(replace(selection, states=frozenset(states)), limit):
            for letter, record in reading.records(letters):
                content = reader.read(record.value)
                said = described(reading.family, letter, record, content, unmask=unmask)
                click.echo(orjson.dumps(said) if as_json else "\n".join(lines(said)))
            limit -= len(letters)
            if limit <= 0:
                return
