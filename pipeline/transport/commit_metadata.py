"""Metadata of a committed offset: the ranges of a partition that are in flight, and its closings by the clock.

The committed offset is the offset of the first record that isn't done. The metadata has the ends of the ranges that
were delivered after it. The partition's next owner cuts the same ranges again before any new one, so that ClickHouse
knows their tokens. The metadata is ASCII: version, topic id, ends, and the CRC-32 of the text before it:

    1 Kq3mXo5pQ0uWm0n0aD2x7A 41999,61999 e225608f

Closings by the clock stand there too, because the log doesn't tell them. Metadata with closings is of version 2, and
has them, as offset@hour, before the checksum. Without any it is of version 1, which all versions of the worker read:

    2 Kq3mXo5pQ0uWm0n0aD2x7A 41999,61999 32000@496812 cbdab01c

A joint insert of the deriver, one that has rows of several partitions, is named there while it may be under way, with
the latest hour of this partition in it. Such metadata is of version 3, with name@hour behind the closings, or behind a
hyphen if there are none:

    3 Kq3mXo5pQ0uWm0n0aD2x7A 41999,61999 - 9f86d081884c7d65@496812 1af2e7c8
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from pipeline.errors import HaltError

MOST_CLOSINGS = 64
_RANGES_ONLY, _WITH_CLOSINGS, _WITH_JOINT_INSERT = "1", "2", "3"  # versions
_JOINT_INSERT = re.compile(r"([0-9a-f]{16})@(\d{1,12})")
_MORE_PARTS = {_RANGES_ONLY: 0, _WITH_CLOSINGS: 1, _WITH_JOINT_INSERT: 2}  # between the ends and the checksum
_NOTHING = "-"
_MOST_CHARACTERS = 4096  # Kafka's default of offset.metadata.max.bytes


class Closing(NamedTuple):
    """Decision of the clock to close windows without a record that closes them."""

    offset: int
    """Offset of the first record after it."""
    hour: int
    """Windows of earlier hours are closed; in hours since 1970."""


class JointInsert(NamedTuple):
    """Insert with rows of several partitions, as it is committed beside the offset of one of them."""

    name: str
    """16 hexadecimal digits; no other insert has it."""
    hour: int
    """Latest hour of the partition in it; in hours since 1970."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """Consecutive ranges in flight from the committed offset on, and the closings that are still needed."""

    topic_id: str
    """Kafka's id of the topic; a topic that was deleted and created again under its name has another id."""
    ends: tuple[int, ...] = ()
    """Last offset of each range, ascending."""
    closings: tuple[Closing, ...] = ()
    """Closings by the clock, by ascending offset."""
    joint_insert: JointInsert | None = None
    """Joint insert that may be under way."""

    def __str__(self) -> str:
        """Return the metadata to commit."""
        closings = ",".join(f"{offset}@{hour}" for offset, hour in self.closings)
        if self.joint_insert:
            version, more = _WITH_JOINT_INSERT, [closings or _NOTHING, "{}@{}".format(*self.joint_insert)]
        else:
            version, more = (_WITH_CLOSINGS, [closings]) if closings else (_RANGES_ONLY, [])
        body = " ".join((version, self.topic_id, ",".join(map(str, self.ends)) or _NOTHING, *more))
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
    if version not in _MORE_PARTS:
        raise HaltError(f"{where}: metadata of version {version[:20]!r}, expected 1, 2 or 3; {_ADVICE}")
    body, _, checksum = metadata.rpartition(" ")
    try:
        recorded_id, ends, *more, _ = parts
        ranges = Ranges(recorded_id, _ends(ends), *_closings_and_joint_insert(version, more))
    except ValueError:
        raise HaltError(f"{where}: damaged metadata {metadata[:80]!r}; {_ADVICE}") from None
    before = (offset - 1,) if topic_id in {None, ranges.topic_id} else ()
    in_order = _ascending(*before, *ranges.ends) and _ascending(*(closing.offset for closing in ranges.closings))
    if checksum != _checksum(body) or not in_order:
        raise HaltError(f"{where}: damaged metadata {metadata[:80]!r}; {_ADVICE}")
    return ranges


def _ends(text: str) -> tuple[int, ...]:
    return () if text == _NOTHING else tuple(map(int, text.split(",")))


def _closings_and_joint_insert(version: str, parts: Sequence[str]) -> tuple[tuple[Closing, ...], JointInsert | None]:
    """Read the parts behind the ends.

    Raises:
        ValueError: they aren't those of the version.
    """
    if len(parts) != _MORE_PARTS[version]:
        raise ValueError
    none = version == _RANGES_ONLY or (version == _WITH_JOINT_INSERT and parts[0] == _NOTHING)
    closings = () if none else tuple(map(_closing, parts[0].split(",")))
    if version != _WITH_JOINT_INSERT:
        return closings, None
    if (joint := _JOINT_INSERT.fullmatch(parts[1])) is None:
        raise ValueError
    return closings, JointInsert(joint[1], int(joint[2]))


def _ascending(*offsets: int) -> bool:
    return all(before < later for before, later in pairwise(offsets))


def _closing(text: str) -> Closing:
    offset, hour = map(int, text.split("@"))
    return Closing(offset, hour)


_ADVICE = "use the version that wrote it, or reset the group's offsets and expect the records in flight twice"


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
