"""The ranges in flight of a partition, as they are recorded in the metadata of its committed offset.

The committed offset is that of the first record which isn't done; the metadata has the ends of the ranges that were
handed out after it. Whoever takes the partition over cuts the same ranges again before any new one, so that ClickHouse
knows their tokens. In ASCII: version, topic id, ends, CRC-32 of what stands before it, separated by blanks:

    1 Kq3mXo5pQ0uWm0n0aD2x7A 41999,61999 e225608f

What was decided by the clock stands there too, because nobody can tell it from the log. Metadata with closings is of
version 2, and has them, as offset@hour, before the checksum; without any it is of version 1, which all of us can read:

    2 Kq3mXo5pQ0uWm0n0aD2x7A 41999,61999 32000@496812 cbdab01c
"""

import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from pipeline.errors import HaltError

MOST_CLOSINGS = 64
_RANGES_ONLY, _WITH_CLOSINGS = "1", "2"  # the versions
_NOTHING = "-"
_MOST_CHARACTERS = 4096  # Kafka's own limit, offset.metadata.max.bytes


class Closing(NamedTuple):
    """A decision of the clock: windows were closed though no record said so."""

    offset: int
    """Of the first record that came, or comes, after it."""
    hour: int
    """Windows of earlier hours are closed; hours since the epoch."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """Ranges in flight, one after the other from the committed offset on; and closings, as long as they are needed."""

    topic_id: str
    """Kafka's id of the topic: one that was deleted and created again under its name is another topic."""
    ends: tuple[int, ...] = ()
    """Offset of the last record of each range, ascending."""
    closings: tuple[Closing, ...] = ()
    """By offset, ascending."""

    def __str__(self) -> str:
        """The metadata to commit."""
        version = _WITH_CLOSINGS if self.closings else _RANGES_ONLY
        closings = (",".join(f"{offset}@{hour}" for offset, hour in self.closings),) if self.closings else ()
        body = " ".join((version, self.topic_id, ",".join(map(str, self.ends)) or _NOTHING, *closings))
        metadata = f"{body} {_checksum(body)}"
        assert len(metadata) <= _MOST_CHARACTERS
        return metadata


def parse(metadata: str, where: str, offset: int) -> Ranges | None:
    """The ranges that a commit recorded; None when it recorded none, as commits of other programs don't.

    Args:
        metadata: what was committed.
        where: group, topic and partition, for messages.
        offset: what was committed with it.

    Raises:
        HaltError: the metadata is damaged, or of another version: the ranges are known, but not to us.
    """
    if not metadata:
        return None
    version, *parts = metadata.split(" ")
    if version not in {_RANGES_ONLY, _WITH_CLOSINGS}:
        raise HaltError(f"{where}: metadata of version {version[:20]!r}, expected 1 or 2; {_ADVICE}")
    body, _, checksum = metadata.rpartition(" ")
    try:
        topic_id, ends, *closings, _ = parts
        ranges = Ranges(topic_id, _ends(ends), tuple(_closing(one) for some in closings for one in some.split(",")))
    except ValueError:
        raise HaltError(f"{where}: damaged metadata {metadata[:80]!r}; {_ADVICE}") from None
    in_order = _ascending(offset - 1, *ranges.ends) and _ascending(*(closing.offset for closing in ranges.closings))
    if checksum != _checksum(body) or len(closings) != (version == _WITH_CLOSINGS) or not in_order:
        raise HaltError(f"{where}: damaged metadata {metadata[:80]!r}; {_ADVICE}")
    return ranges


def _ends(text: str) -> tuple[int, ...]:
    return () if text == _NOTHING else tuple(map(int, text.split(",")))


def _ascending(*offsets: int) -> bool:
    return all(before < later for before, later in pairwise(offsets))


def _closing(text: str) -> Closing:
    offset, hour = map(int, text.split("@"))
    return Closing(offset, hour)


_ADVICE = "use the version that wrote it, or reset the group's offsets and expect the records in flight twice"


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
