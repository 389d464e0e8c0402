"""Glance at a snapshot's manifest, without its chunks: the monitor reads no more, and so needs no numpy."""

from typing import NamedTuple

import orjson

from pipeline.errors import ChimeraError

VERSION = 1
"""Version of manifests and chunks."""


class DamagedSnapshotError(ChimeraError):
    """Manifest and chunks don't belong together, are damaged, or have another version."""


class Glance(NamedTuple):
    """Facts in a manifest that need no chunks."""

    offset: int
    """First offset whose record isn't in the snapshot."""
    watermark: int
    """Watermark in ms since 1970."""
    open_windows: int
    waiting_events: int


def glance(manifest: bytes) -> Glance:
    """Read a manifest alone; without the chunks, its checksum can't be checked.

    Raises:
        DamagedSnapshotError: it isn't a manifest of this version.
    """
    try:
        facts = orjson.loads(manifest)
        lengths = {name: int(length) for name, _, length in facts["columns"]}
        found = Glance(int(facts["offset"]), int(facts["watermark"]), lengths["window.hour"], lengths["waiting.ts"])
        known = facts["version"] == VERSION
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DamagedSnapshotError("the manifest is damaged") from None
    if not known:
        raise DamagedSnapshotError(f"the manifest has version {facts['version']!r}, expected {VERSION}")
    return found
