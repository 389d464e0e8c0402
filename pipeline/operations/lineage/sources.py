"""Sources of records for a replay: the family's own log, the log of another topic, or a file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Protocol
from uuid import UUID

from pipeline.catalog import DEAD_LETTERS, Catalog, Family
from pipeline.columns import Ints
from pipeline.decode.decoder import SchemaSource
from pipeline.errors import ChimeraError
from pipeline.operations.lineage.spans import Bound, Span
from pipeline.transport.stretches import LogStretch

Progress = Callable[[int, int], None]
"""Function that is called with the number of bytes that were read, and with their total."""


def ignore(_done: int, _total: int) -> None:
    """Show no progress."""


class SourceError(ChimeraError):
    """A topic or a file that can't be replayed into the family's table; nothing of it was inserted."""

    exit_code = 65  # EX_DATAERR of sysexits.h


@dataclass(frozen=True, slots=True)
class Order:
    """A replay as the user asks for it."""

    family: Family
    begin: Bound
    end: Bound
    """End, exclusive."""
    into: str | None = None
    """Table to fill in the place of the family's own."""
    despite_unknown: bool = False
    """True to fill days that have rows of unknown origin, too."""
    days: tuple[date, ...] = ()
    """Days to make anew; empty to fill."""
    keep_unknown: bool = False
    """True to keep rows of unknown origin in days that are made anew."""
    allow_removal: bool = False
    """True to remove rows of these days whose records make no row of them any more."""
    source_topic: str | None = None
    """Topic to read in the place of the family's own."""
    file: Path | None = None
    """File to read in the place of a topic."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """Result of a look at a source: the records that it has, and the coordinates of their rows."""

    name: str
    """Kind and name of the source, for messages."""
    topic_id: UUID
    """First part of the coordinates."""
    spans: tuple[Span, ...]
    """Offsets to read; at least one span."""
    own: bool = False
    """True if the coordinates are those of the family's topic as it is now."""
    lettered: Mapping[int, Ints] = field(default_factory=dict)
    """Offsets of dead-lettered records by partition, ascending."""
    schemas: SchemaSource | None = None
    """Schemas that the records' frames refer to, in the place of the registry's."""


class RecordSource(Protocol):
    """Source of records; its methods raise SourceError, UnavailableError and HaltError."""

    def survey(self, order: Order, progress: Progress, /) -> Surveyed:
        """Find out what the source has; changes nothing."""

    def read(
        self, ranges: Mapping[int, Sequence[range]], wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[LogStretch]:
        """Read ranges of offsets, each partition's in their order; each offset is in exactly one stretch.

        Args:
            ranges: ascending ranges that don't overlap, by partition.
            wanted: False to end early.
        """


def check_source(catalog: Catalog, family: Family, topic: str) -> None:
    """Check that records of a topic may be read for another topic's table.

    Raises:
        SourceError: the topic is the family's own, or has another role in this pipeline.
    """
    if topic == family.topic.name:
        raise SourceError(
            f"topic {topic} is the own topic of {family.name}; leave --source-topic out, and its log is read below the "
            "committed offsets"
        )
    if role := _role(catalog, topic):
        raise SourceError(f"topic {topic} {role}; expected a topic with events of {family.name}")


def _role(catalog: Catalog, topic: str) -> str:
    """Describe the role of a topic in topics.yaml; empty if it has none."""
    for family in catalog.families:
        if topic == family.topic.name:
            return f"has the events of {family.name}"
        if topic == family.dead_letters.name:
            return f"has the dead letters of {family.name}, which `chimera dlq requeue` sends again"
    if catalog.rollup and topic == catalog.rollup.state.name:
        return "has the state of the rollup"
    return "has dead letters" if topic.endswith(DEAD_LETTERS) else ""
