"""A snapshot is the same after packing and unpacking, or it is refused."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.rollup.fold import HOUR_MS
from pipeline.rollup.glance import DamagedSnapshotError
from pipeline.rollup.snapshot import CHUNK_BYTES, Packed, Snapshot, pack, unpack

_CHUNK_BYTES = 32
_DTYPES = ("i1", "u1", "i4", "u4", "i8", ">i8", "u8", "f4", "f8", "?", "V1", "V16", "V40")


def snapshot_of(offset: int = 7, **columns: NDArray[Any]) -> Snapshot:
    return Snapshot("Kq3mXo5pQ0uWm0n0aD2x7A", 5, offset, -1, columns)


@pytest.fixture
def small() -> Snapshot:
    """A snapshot of several chunks of `_CHUNK_BYTES`."""
    return snapshot_of(hours=np.arange(5), session_id=np.frombuffer(np.random.default_rng(1).bytes(96), "V16"))


@st.composite
def columns(draw: st.DrawFn) -> dict[str, NDArray[Any]]:
    """Columns of any type and length, also views of every second value of an array."""
    names = draw(st.lists(st.text(max_size=10), max_size=5, unique=True))
    return {name: draw(_column())[:: draw(st.sampled_from((1, 2, -1)))] for name in names}


@st.composite
def _column(draw: st.DrawFn) -> NDArray[Any]:
    dtype = np.dtype(draw(st.sampled_from(_DTYPES)))
    size = dtype.itemsize * draw(st.integers(0, 40))
    return np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype)


def _same(one: Snapshot, other: Snapshot) -> None:
    assert (one.topic_id, one.partition, one.offset, one.watermark) == (
        other.topic_id,
        other.partition,
        other.offset,
        other.watermark,
    )
    assert list(one.columns) == list(other.columns)
    for name, column in one.columns.items():
        assert (column.dtype, column.tobytes()) == (other.columns[name].dtype, other.columns[name].tobytes())


@given(columns(), st.integers(0, 2**62), st.integers(-(2**62), 2**62))
def test_a_snapshot_is_the_same_afterwards(state: dict[str, NDArray[Any]], offset: int, watermark: int) -> None:
    """Names, types, order and every bit of the columns are kept, and so are the other fields."""
    snapshot = Snapshot("Kq3mXo5pQ0uWm0n0aD2x7A", 5, offset, watermark, state)
    packed = pack(snapshot)
    _same(unpack(packed.manifest, packed.chunks), snapshot)


def test_an_empty_snapshot_is_valid() -> None:
    """Empty columns keep their types."""
    snapshot = snapshot_of(ids=np.empty(0, "V16"), counts=np.empty(0, np.uint32))
    packed = pack(snapshot)
    _same(unpack(packed.manifest, packed.chunks), snapshot)


def test_chunks_fit_into_records_at_a_million_windows() -> None:
    """No chunk exceeds the limit, which is below 1 MiB; the manifest stays small."""
    random, count = np.random.default_rng(1), 1_000_000
    ids = np.frombuffer(random.bytes(16 * count), "V16")
    packed = pack(snapshot_of(ids=ids, sums=random.integers(0, 1 << 40, count)))
    assert len(packed.chunks) > 16
    assert max(map(len, packed.chunks)) <= CHUNK_BYTES < 1024 * 1024
    assert len(packed.manifest) < 1000


def test_a_damaged_byte_is_noticed_wherever_it_is(small: Snapshot) -> None:
    """Flip each bit of manifest and chunks, one at a time."""
    chunks, manifest = pack(small, _CHUNK_BYTES)
    assert len(chunks) > 2
    parts = [manifest, *chunks]
    for number, part in enumerate(parts):
        for position in range(8 * len(part)):
            damaged = bytearray(part)
            damaged[position // 8] ^= 1 << position % 8
            spoiled = [*parts[:number], bytes(damaged), *parts[number + 1 :]]
            with pytest.raises(DamagedSnapshotError):
                unpack(spoiled[0], spoiled[1:])


def _of_version_2(packed: Packed) -> Packed:
    return packed._replace(manifest=orjson.dumps({**orjson.loads(packed.manifest), "version": 2}))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda packed, _: Packed(packed.chunks[:-1], packed.manifest), "1 of .* chunks are missing"),
        (lambda packed, _: Packed(packed.chunks[1:], packed.manifest), "1 of .* chunks are missing"),
        (lambda packed, _: Packed([], packed.manifest), "chunks are missing"),
        (lambda packed, _: Packed(packed.chunks[::-1], packed.manifest), "checksum"),
        (lambda packed, other: Packed([other.chunks[0], *packed.chunks[1:]], packed.manifest), "checksum"),
        (lambda packed, other: Packed(packed.chunks, other.manifest), "checksum"),
        (lambda packed, _: Packed(packed.chunks, packed.manifest[:-1]), "the manifest is damaged"),
        (lambda packed, _: Packed(packed.chunks, b""), "the manifest is damaged"),
        (lambda packed, _: Packed(packed.chunks, b"[1]"), "the manifest is damaged"),
        (lambda packed, _: _of_version_2(packed), "version 2, expected 1"),
    ],
    ids=[
        "last chunk missing",
        "first chunk missing",
        "all chunks missing",
        "chunks in another order",
        "a chunk of another one",
        "the manifest of another one",
        "manifest cut",
        "no manifest",
        "another document",
        "of a later version",
    ],
)
def test_parts_that_do_not_belong_together_are_refused(small: Snapshot, spoil: Any, reason: str) -> None:
    """The error names the damage."""
    other = snapshot_of(8, hours=small.columns["hours"] + 1, session_id=small.columns["session_id"][::-1])
    spoiled = spoil(pack(small, _CHUNK_BYTES), pack(other, _CHUNK_BYTES))
    with pytest.raises(DamagedSnapshotError, match=reason):
        unpack(spoiled.manifest, spoiled.chunks)


def test_chunks_left_over_from_a_larger_one_do_no_harm(small: Snapshot) -> None:
    """A slot has more chunks than its manifest counts if a writer died before it removed them."""
    packed = pack(small, _CHUNK_BYTES)
    _same(unpack(packed.manifest, [*packed.chunks, b"left over"]), small)


@pytest.mark.parametrize(
    ("hours", "watermark", "before"),
    [([], 0, 0), ([], 9 * HOUR_MS - 1, 8), ([8, 9], 9 * HOUR_MS, 8), ([9, 10], 9 * HOUR_MS, 9)],
    ids=["nothing yet", "in the middle of an hour", "closed and not yet stored", "only open ones"],
)
def test_the_first_hour_that_may_not_be_stored(hours: list[int], watermark: int, before: int) -> None:
    """Windows are removed once their rows are stored: closed hours without windows are stored."""
    snapshot = Snapshot("t", 0, 0, watermark, {"window.hour": np.array(hours, np.int64)})
    assert snapshot.emitted_before == before
