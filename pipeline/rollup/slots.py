"""Keys of the records in the state topic, and the choice of the newest whole snapshot among them.

A record is a chunk of a snapshot or its manifest. Its key names the owner of the snapshot: consumer group (each group
has its own stored rows and closings), id of the source topic, source partition, writer and slot. The last part of the
key is the number of the chunk or the word manifest:

    chimera/Kq3mXo5pQ0uWm0n0aD2x7A/5/9f86d081a3b1c2d4.1/manifest
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote

from pipeline.rollup.snapshot import DamagedSnapshotError, Snapshot, unpack

MANIFEST = "manifest"


class Key(NamedTuple):
    """Key of a record in the state topic."""

    group: str
    topic_id: str
    partition: int
    slot: str
    """Writer and slot number."""
    part: str
    """Number of a chunk, or `MANIFEST`."""

    def __bytes__(self) -> bytes:
        """Encode the key."""
        parts = self._replace(topic_id=quote(self.topic_id, safe=""))  # Kafka's ids may have slashes
        return "/".join(map(str, parts)).encode()

    @classmethod
    def parse(cls, key: bytes) -> "Key | None":
        """Decode a key; None if it isn't a key of this format."""
        try:
            group, topic_id, partition, slot, part = key.decode().rsplit("/", 4)  # a group's name may have slashes
            parsed = cls(group, unquote(topic_id), int(partition), slot, part)
        except ValueError:
            return None
        return parsed if part == MANIFEST or part.isdecimal() else None


class Loaded(NamedTuple):
    """Snapshots found of one partition."""

    snapshot: Snapshot | None
    """The newest whole snapshot; None if all are damaged."""
    older_offset: int | None
    """Offset of the second newest whole snapshot."""
    damaged: tuple[str, ...]
    """Skipped snapshots: slot and damage of each."""


def newest(values: Mapping[Key, bytes], topic_id: str) -> Loaded | None:
    """Return the newest whole snapshot of a source partition; None if there is no snapshot, not even a damaged one.

    Args:
        values: the latest value of each key of the partition.
        topic_id: id of the source topic.
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
    """Return a sort key: at one offset, the clock may close hours, and hours may be stored."""
    return snapshot.offset, snapshot.watermark, snapshot.emitted_before


def _unpack(parts: Mapping[str, bytes]) -> Snapshot:
    chunks = [parts[number] for number in sorted(parts.keys() - {MANIFEST}, key=int)]
    if MANIFEST not in parts:
        raise DamagedSnapshotError("half-written: the manifest is missing")
    return unpack(parts[MANIFEST], chunks)
