"""`chimera dlq show`: show the content of dead letters."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click
import orjson

from pipeline.cli.dlq.options import as_json_option, in_state, read_topics, selecting
from pipeline.dlq.content import Reader
from pipeline.dlq.show import described, lines
from pipeline.kafka.registry import registry_of


@click.command()
@selecting
@in_state
@click.option(
    "--limit", type=click.IntRange(min=1), default=10, show_default=True, help="Largest number of dead letters to show."
)
@click.option("--unmask", is_flag=True, help="Show the content of keys, values and headers.")
@as_json_option
def show(*, states: Sequence[str], limit: int, unmask: bool, as_json: bool, **conditions: Any) -> None:
    """Show dead letters, decoded up to their fault.

    Values are shown field by field. Keys, values, ids, headers and header names are masked: only type and length are
    shown, unless --unmask is given. The unmasked content may be personal data.

    \b
    Examples:
      chimera dlq show --topic ui_events --limit 1
      chimera dlq show --at chimera.ui_events:3:41200 --unmask
      chimera dlq show --reason too_long --json

    \b
    Exit codes:
      0   shown, even if there are no dead letters
      2   the options are wrong
      69  the broker doesn't answer
      70  the broker refuses, or a topic is missing
      78  a setting, topics.yaml or a schema is wrong
    """
    settings, found = read_topics(conditions)
    registry = registry_of(settings.registry)
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
