"""Snapshots of a partition as bytes: compressed chunks that fit into records, and a manifest with their checksum.

All columns are compressed together, and the result is cut into chunks. A column's numbers are stored byte by byte, the
lowest byte of all numbers first: zstd then needs half the time. The manifest is JSON, with a checksum of itself and the
chunks.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cramjam
import numpy as np
import orjson
from numpy.typing import NDArray

from pipeline.rollup.fold import HOUR_MS
from pipeline.rollup.glance import VERSION, DamagedSnapshotError

CHUNK_BYTES = 1_000_000
"""Size limit of a chunk: with its key it stays below 1 MiB, the default limit of a topic."""

BOUND_FROM = "rule.bound_from"
"""Column with the offset from which the broker's time bounds the watermark; snapshots of older versions lack it."""

_LEVEL = 1  # session ids don't compress, and other columns do at any level
_CHECKSUM = "sha256"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of one partition that contains all records below an offset."""

    topic_id: str
    """Kafka's id of the source topic: a topic that is deleted and created again gets another id."""
    partition: int
    offset: int
    """First offset whose record isn't in the snapshot."""
    watermark: int
    """Watermark in ms since the epoch."""
    columns: Mapping[str, NDArray[Any]]
    """Result of `PartitionWindows.columns`."""

    @property
    def emitted_before(self) -> int:
        """Hour number: the rows of all earlier hours are in session_stats."""
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
    data = bytes(cramjam.zstd.compress(raw, _LEVEL))  # one call, because only then it releases the GIL
    chunks = [data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes)]
    facts = {
        "version": VERSION,
        "topic_id": snapshot.topic_id,
        "partition": snapshot.partition,
        "offset": snapshot.offset,
        "watermark": snapshot.watermark,
        "columns": [(name, column.dtype.str, len(column)) for name, column in snapshot.columns.items()],
        "chunks": len(chunks),
    }
    return Packed(chunks, orjson.dumps({**facts, _CHECKSUM: _checksum(facts, chunks)}))


def unpack(manifest: bytes, chunks: Sequence[bytes]) -> Snapshot:
    """Turn bytes back into a snapshot.

    Args:
        manifest: the packed manifest.
        chunks: the packed chunks in order; chunks beyond the manifest's count are left over and ignored.

    Raises:
        DamagedSnapshotError: a byte differs from the packed ones, or a chunk is missing.
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
    """Return the facts of the manifest after checking its version and checksum."""
    try:
        facts = orjson.loads(manifest)
        version, count, checksum = facts["version"], facts["chunks"], facts.pop(_CHECKSUM)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DamagedSnapshotError("the manifest is damaged") from None
    if version != VERSION:
        raise DamagedSnapshotError(f"the manifest has version {version!r}, expected {VERSION}")
    if isinstance(count, int) and len(chunks) < count:
        raise DamagedSnapshotError(f"{count - len(chunks)} of {count} chunks are missing")
    if not isinstance(count, int) or checksum != _checksum(facts, chunks[:count]):
        raise DamagedSnapshotError("the checksum differs: the snapshot is damaged, or mixed with another one")
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
