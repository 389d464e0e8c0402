"""The ranges in flight of a partition, as they are recorded in the metadata of its committed offset.

The committed offset is that of the first record which isn't done; the metadata has the ends of the ranges that were
handed out after it. Whoever takes the partition over cuts the same ranges again before any new one, so that ClickHouse
knows their tokens. In ASCII: version, topic id, ends, CRC-32 of what stands before it, separated by blanks:

    1 Kq3mXo5pQ0uWm0n0aD2x7A 41999,61999 e225608f
"""

import time
import zlib
from dataclasses import dataclass

from pipeline.errors import HaltError

VERSION = "1"
_NOTHING = "-"
_MOST_CHARACTERS = 4096  # Kafka's own limit, offset.metadata.max.bytes

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def lease_clock() -> float:
    """Seconds that go on while the machine is asleep, which those of `time.monotonic` don't: what a lease goes by."""
    return time.clock_gettime(_CLOCK)


@dataclass(frozen=True, slots=True)
class Ranges:
    """Ranges in flight, one after the other from the committed offset on."""

    topic_id: str
    """Kafka's id of the topic: one that was deleted and created again under its name is another topic."""
    ends: tuple[int, ...] = ()
    """Offset of the last record of each range, ascending."""

    def __str__(self) -> str:
        """The metadata to commit."""
        body = f"{VERSION} {self.topic_id} {','.join(map(str, self.ends)) or _NOTHING}"
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
    version, *rest = metadata.split(" ")
    if version != VERSION:
        raise HaltError(f"{where}: metadata of version {version[:20]!r}, expected {VERSION}; {_ADVICE}")
    body, _, checksum = metadata.rpartition(" ")
    try:
        topic_id, ends, _ = rest
        ranges = Ranges(topic_id, () if ends == _NOTHING else tuple(map(int, ends.split(","))))
    except ValueError:
        raise HaltError(f"{where}: damaged metadata {metadata[:80]!r}; {_ADVICE}") from None
    previous = (offset - 1, *ranges.ends)
    if checksum != _checksum(body) or any(end <= before for before, end in zip(previous, ranges.ends, strict=False)):
        raise HaltError(f"{where}: damaged metadata {metadata[:80]!r}; {_ADVICE}")
    return ranges


_ADVICE = "use the version that wrote it, or reset the group's offsets and expect the records in flight twice"


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
