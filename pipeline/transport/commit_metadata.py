"""Metadata of a committed offset: the ranges of a partition that are in flight, and its closings by the clock.

The committed offset is the offset of the first record that isn't done. The metadata has the ends of the ranges that
were delivered after it. The partition's next owner cuts the same ranges again before any new one, so that ClickHouse
knows their tokens. The metadata is ASCII: version, topic id, ends, and the CRC-32 of the text before it:

    1 Kq3mXo5pQ0uWm0n0aD2x7A 41999,61999 e225608f

Closings by the clock stand there too, because the log doesn't tell them. Metadata with closings is of version 2, and
has them, as offset@hour, before the checksum. Without any it is of version 1, which all versions of the worker read:

    2 Kq3mXo5pQ0uWm0n0aD2x7A 41999,61999 32000@496812 cbdab01c
"""

import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from pipeline.errors import HaltError

MOST_CLOSINGS = 64
_RANGES_ONLY, _WITH_CLOSINGS = "1", "2"  # versions
_NOTHING = "-"
_MOST_CHARACTERS = 4096  # Kafka's default of offset.metadata.max.bytes


class Closing(NamedTuple):
    """Decision of the clock to close windows without a record that closes them."""

    offset: int
    """Offset of the first record after it."""
    hour: int
    """Windows of earlier hours are closed; in hours since 1970."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """Consecutive ranges in flight from the committed offset on, and the closings that are still needed."""

    topic_id: str
    """Kafka's id of the topic; a topic that was deleted and created again under its name has another id."""
    ends: tuple[int, ...] = ()
    """Last offset of each range, ascending."""
    closings: tuple[Closing, ...] = ()
    """Closings by the clock, by ascending offset."""

    def __str__(self) -> str:
        """Return the metadata to commit."""
        version = _WITH_CLOSINGS if self.closings else _RANGES_ONLY
        closings = (",".join(f"{offset}@{hour}" for offset, hour in self.closings),) if self.closings else ()
        body = " ".join((version, self.topic_id, ",".join(map(str, self.ends)) or _NOTHING, *closings))
        metadata = f"{body} {_checksum(body)}"
        assert len(metadata) <= _MOST_CHARACTERS
        return metadata


def parse(metadata: str, where: str, offset: int, topic_id: str | None = None) -> Ranges | None:
    """Read the metadata of a commit; None if it is empty, as in commits of other programs.

    Args:
        metadata: committed metadata.
        where: group, topic and partition, for messages.
        offset: committed offset.
        topic_id: id of the topic. The ranges of a topic with another id needn't follow the offset: a tool that copied
            the commit may have translated it. None compares them in any case.

    Raises:
        HaltError: the metadata is damaged or of an unknown version, so the ranges in flight are unknown.
    """
    if not metadata:
        return None
    version, *parts = metadata.split(" ")
    if version not in {_RANGES_ONLY, _WITH_CLOSINGS}:
        raise HaltError(f"{where}: metadata of version {version[:20]!r}, expected 1 or 2; {_ADVICE}")
    body, _, checksum = metadata.rpartition(" ")
    try:
        recorded_id, ends, *closings, _ = parts
        ranges = Ranges(recorded_id, _ends(ends), tuple(_closing(one) for some in closings for one in some.split(",")))
    except ValueError:
        raise HaltError(f"{where}: damaged metadata {metadata[:80]!r}; {_ADVICE}") from None
    before = (offset - 1,) if topic_id in {None, ranges.topic_id} else ()
    in_order = _ascending(*before, *ranges.ends) and _ascending(*(closing.offset for closing in ranges.closings))
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
