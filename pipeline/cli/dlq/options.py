"""Options of `chimera dlq` that select dead letters, and reading the selected ones."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

from pipeline.catalog import Catalog, Family, load_catalog
from pipeline.cli.progress import progress_bar
from pipeline.cli.times import TimeType
from pipeline.config import Settings, load_settings
from pipeline.dlq.index import UNSETTLED, Place, Selection
from pipeline.dlq.letters import FOREIGN, OPEN, OTHER
from pipeline.dlq.reading import Reading
from pipeline.dlq.receipts import Outcome
from pipeline.errors import Reason

STATES = (OPEN, *(outcome.value for outcome in Outcome))

_DIGITS = 19  # of a number that is no offset any more

F = TypeVar("F", bound=Callable[..., Any])
Found = list[tuple[Reading, Selection]]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < _DIGITS


class _At(click.ParamType):
    """A topic, a partition and an offset."""

    name = "at"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int, int]:
        topic, *numbers = value.rsplit(":", 2)
        if len(numbers) != 2 or not all(map(_is_number, numbers)):
            self.fail(f"expected topic:partition:offset, got {value!r}", param, ctx)
        return topic, int(numbers[0]), int(numbers[1])


_OPTIONS = (
    click.option("--topic", "topics", multiple=True, help="Only this topic or family; may be repeated."),
    click.option(
        "--reason",
        "reasons",
        multiple=True,
        type=click.Choice([*(reason.value for reason in Reason), OTHER, FOREIGN]),
        metavar="REASON",
        help="Only this reason; may be repeated. `other`: unknown to this version; `foreign`: not written by a worker.",
    ),
    click.option(
        "--since",
        type=TimeType(),
        help="Rejected at or after this time: ISO 8601, UTC if it has no offset, or so long ago: 90s, 15m, 1h, 2d, 1w.",
    ),
    click.option("--until", type=TimeType(), help="Rejected before this time."),
    click.option(
        "--at",
        multiple=True,
        type=_At(),
        metavar="TOPIC:PARTITION:OFFSET",
        help="Position of the rejected record, or, with a dead-letter topic, of the dead letter; may be repeated.",
    ),
)


in_state = click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES),
    default=sorted(UNSETTLED),
    help="Only this state; may be repeated.  [default: open and claimed, which aren't settled yet]",
)
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")


def selecting(command: F) -> F:
    """Add the options that select dead letters: `topics`, `reasons`, `since`, `until` and `at`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_topics(conditions: dict[str, Any]) -> tuple[Settings, Found]:
    """Read the selected dead-letter topics."""
    settings = load_settings()
    meant = _chosen(load_catalog(settings), **conditions)
    found = [(Reading(settings.kafka, family), selection) for family, selection in meant]
    with progress_bar() as progress:
        task = progress.add_task("Reading", total=sum(len(reading) for reading, _ in found))
        for reading, _ in found:
            for _ in reading.read():
                progress.advance(task)
    return settings, found


def _chosen(
    catalog: Catalog,
    *,
    topics: Sequence[str],
    reasons: Sequence[str],
    since: datetime | None,
    until: datetime | None,
    at: Sequence[tuple[str, int, int]],
) -> list[tuple[Family, Selection]]:
    """Return the selected families, with the selection of each.

    Raises:
        click.UsageError: a topic belongs to no family.
    """
    families = {_family(catalog, name).name for name in topics} or {family.name for family in catalog.families}
    places: dict[str, set[Place]] = {}
    for topic, partition, offset in at:
        family = _family(catalog, topic)
        dead_letter = topic == family.dead_letters.name
        places.setdefault(family.name, set()).add(Place(dead_letter, partition, offset))
    return [
        (family, Selection(frozenset(reasons), since, until, frozenset(places.get(family.name, ()))))
        for family in catalog.families
        if family.name in families and (not at or family.name in places)
    ]


def _family(catalog: Catalog, name: str) -> Family:
    for family in catalog.families:
        if name in {family.name, family.topic.name, family.dead_letters.name}:
            return family
    known = ", ".join(family.topic.name for family in catalog.families)
    raise click.UsageError(f"no family has the topic {name!r}; expected one of {known}, or its dead-letter topic")
