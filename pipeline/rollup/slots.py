"""Which of the records of the state topic are whole snapshots: their keys, and the newest snapshot among them.

A record is a chunk of a snapshot or its manifest. Its key says whose it is: consumer group (what it has stored, and has
closed by the clock, is its own), source topic by id, source partition, writer and slot; and which part of it:

    chimera/Kq3mXo5pQ0uWm0n0aD2x7A/5/9f86d081a3b1c2d4.1/manifest
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote

from pipeline.rollup.snapshot import DamagedSnapshotError, Snapshot, unpack

MANIFEST = "manifest"


class Key(NamedTuple):
    """The key of a record."""

    group: str
    topic_id: str
    partition: int
    slot: str
    """Writer and number."""
    part: str
    """Number of a chunk, or `MANIFEST`."""

    def __bytes__(self) -> bytes:
        """As it is written."""
        parts = self._replace(topic_id=quote(self.topic_id, safe=""))  # Kafka's ids may have slashes
        return "/".join(map(str, parts)).encode()

    @classmethod
    def parse(cls, key: bytes) -> "Key | None":
        """What was written; None when it is no key of ours."""
        try:
            group, topic_id, partition, slot, part = key.decode().rsplit("/", 4)  # a group's name may have slashes
            parsed = cls(group, unquote(topic_id), int(partition), slot, part)
        except ValueError:
            return None
        return parsed if part == MANIFEST or part.isdecimal() else None


class Loaded(NamedTuple):
    """What there was of a partition."""

    snapshot: Snapshot | None
    """The newest whole one."""
    older_offset: int | None
    """Offset of the whole one before it."""
    damaged: tuple[str, ...]
    """What was passed over: the slot, and what is wrong with it."""


def newest(values: Mapping[Key, bytes], topic_id: str) -> Loaded | None:
    """The newest whole snapshot of a source topic; None when there isn't even a damaged one.

    Args:
        values: the latest value of each key, of one partition.
        topic_id: of the source topic.
    """
    slots: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
    for key, value in values.items():
        if key.topic_id == topic_id:
            slots[key.slot][key.part] = value
    best, offsets, damaged = None, [], []
    for slot, parts in slots.items():
        try:
            snapshot = _unpack(parts)
        except DamagedSnapshotError as error:
            damaged.append(f"{slot}: {error}")
        else:
            offsets.append(snapshot.offset)
            if best is None or _progress(snapshot) > _progress(best):
                best = snapshot
    older = sorted(offsets)[-2] if len(offsets) > 1 else None
    return Loaded(best, older, tuple(damaged)) if slots else None


def _progress(snapshot: Snapshot) -> tuple[int, int, int]:
    """What tells the newer one of two: at the same offset, hours may have been closed by the clock, and been stored."""
    return snapshot.offset, snapshot.watermark, snapshot.emitted_before


def _unpack(parts: Mapping[str, bytes]) -> Snapshot:
    chunks = [parts[number] for number in sorted(parts.keys() - {MANIFEST}, key=int)]
    if MANIFEST not in parts:
        raise DamagedSnapshotError("half-written, there is no manifest")
    return unpack(parts[MANIFEST], chunks)
