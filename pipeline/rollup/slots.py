"""Choice of the newest whole snapshot among the records of the state topic."""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from pipeline.rollup.glance import DamagedSnapshotError
from pipeline.rollup.keys import MANIFEST, Key
from pipeline.rollup.snapshot import Snapshot, unpack


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
