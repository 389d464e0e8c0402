"""The windows of a partition as bytes: compressed chunks that fit into records, and a manifest that vouches for them.

The columns are compressed as one, and the chunks are cuts of that. Numbers are laid out byte by byte, the lowest byte
of all of them first, which takes zstd half the time. The manifest is JSON, with a checksum of itself and the chunks.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cramjam
import numpy as np
import orjson
from numpy.typing import NDArray

from pipeline.errors import ChimeraError
from pipeline.rollup.fold import HOUR_MS

CHUNK_BYTES = 1_000_000
"""No chunk is larger: with its key it is below what a topic takes by default, 1 MiB."""

_VERSION = 1
_LEVEL = 1  # session ids don't compress, and the rest does at any level
_CHECKSUM = "sha256"


class DamagedSnapshotError(ChimeraError):
    """Manifest and chunks aren't what was packed together, or are of another version."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The windows of one partition, when all records below an offset were in them."""

    topic_id: str
    """Kafka's id of the source topic: one that was deleted and created again under its name is another topic."""
    partition: int
    offset: int
    """Of the first record that isn't in it."""
    watermark: int
    """In ms."""
    columns: Mapping[str, NDArray[Any]]
    """As `PartitionWindows.columns` gives them."""

    @property
    def emitted_before(self) -> int:
        """An hour number: the windows of all earlier hours had been stored in session_stats."""
        hours = self.columns["window.hour"]
        closed = self.watermark // HOUR_MS
        return min(closed, int(hours.min())) if len(hours) else closed


class Packed(NamedTuple):
    """A snapshot as bytes."""

    chunks: list[bytes]
    manifest: bytes


def pack(snapshot: Snapshot, chunk_bytes: int = CHUNK_BYTES) -> Packed:
    """Turn a snapshot into bytes.

    Args:
        snapshot: its columns are one-dimensional arrays, of any type but objects.
        chunk_bytes: size limit of a chunk.
    """
    raw = b"".join(map(_by_byte, snapshot.columns.values()))
    data = bytes(cramjam.zstd.compress(raw, _LEVEL))  # all at once, because only then it lets other threads run
    chunks = [data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes)]
    facts = {
        "version": _VERSION,
        "topic_id": snapshot.topic_id,
        "partition": snapshot.partition,
        "offset": snapshot.offset,
        "watermark": snapshot.watermark,
        "columns": [(name, column.dtype.str, len(column)) for name, column in snapshot.columns.items()],
        "chunks": len(chunks),
    }
    return Packed(chunks, orjson.dumps({**facts, _CHECKSUM: _checksum(facts, chunks)}))


def unpack(manifest: bytes, chunks: Sequence[bytes]) -> Snapshot:
    """Make the snapshot again.

    Args:
        manifest: as packed.
        chunks: in their order; more than the manifest speaks of are left over from another snapshot, and no harm.

    Raises:
        DamagedSnapshotError: a byte of it differs from what was packed, or a chunk is missing.
    """
    facts = _verified(manifest, chunks)
    kinds = [(name, np.dtype(dtype), length) for name, dtype, length in facts["columns"]]
    size = sum(dtype.itemsize * length for _, dtype, length in kinds)
    data = cramjam.zstd.decompress(b"".join(chunks[: facts["chunks"]]), output_len=size)
    raw = np.frombuffer(bytes(data), np.uint8)
    columns, start = {}, 0
    for name, dtype, length in kinds:
        end = start + dtype.itemsize * length
        columns[name] = _by_value(raw[start:end], dtype, length)
        start = end
    return Snapshot(facts["topic_id"], facts["partition"], facts["offset"], facts["watermark"], columns)


def _verified(manifest: bytes, chunks: Sequence[bytes]) -> dict[str, Any]:
    """What the manifest says, once its checksum is right."""
    try:
        facts = orjson.loads(manifest)
        version, count, checksum = facts["version"], facts["chunks"], facts.pop(_CHECKSUM)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DamagedSnapshotError("the manifest is damaged") from None
    if version != _VERSION:
        raise DamagedSnapshotError(f"the manifest is of version {version!r}, expected {_VERSION}")
    if isinstance(count, int) and len(chunks) < count:
        raise DamagedSnapshotError(f"{count - len(chunks)} of {count} chunks are missing")
    if not isinstance(count, int) or checksum != _checksum(facts, chunks[:count]):
        raise DamagedSnapshotError("the checksum differs: it is damaged, or mixed with another one")
    return dict(facts)


def _checksum(facts: Mapping[str, Any], chunks: Sequence[bytes]) -> str:
    digest = hashlib.new(_CHECKSUM, orjson.dumps(facts))
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _by_byte(column: NDArray[Any]) -> bytes:
    assert not column.dtype.hasobject
    return np.ascontiguousarray(column).view(np.uint8).reshape(len(column), column.itemsize).T.tobytes()


def _by_value(raw: NDArray[np.uint8], dtype: np.dtype[Any], length: int) -> NDArray[Any]:
    return np.ascontiguousarray(raw.reshape(dtype.itemsize, length).T).reshape(-1).view(dtype)
