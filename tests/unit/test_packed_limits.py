"""Memory that batches may take: what they unpack to, what their heads claim, and what is kept of a fetch."""

import struct
import tracemalloc
from collections.abc import Callable

import cramjam
import lz4.frame
import pytest
from support.kafka_batches import ATTRIBUTES, CODECS, FIRST, RECORDS, batch_of, encoded, made_of, packed, record_of
from support.partitions import partition_of

from pipeline.transport.batch_format import DamagedBatchError
from pipeline.transport.packed import PackedBatch, read, read_sparse


def _xerial(data: bytes) -> bytes:
    """Compress as Java's snappy does, in blocks of 1000 bytes."""
    blocks = [bytes(cramjam.snappy.compress_raw(data[at : at + 1000])) for at in range(0, len(data), 1000)]
    head = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
    return head + b"".join(len(block).to_bytes(4, "big") + block for block in blocks)


def _streamed_zstd(data: bytes) -> bytes:
    """Compress without a size in the head of the frame, as Java does."""
    stream = cramjam.zstd.Compressor()
    stream.compress(data)
    return bytes(stream.finish())


_FORMS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (1, lambda data: bytes(cramjam.gzip.compress(data))),
    "snappy": (2, lambda data: bytes(cramjam.snappy.compress_raw(data))),
    "snappy of Java": (2, _xerial),
    "lz4": (3, lambda data: lz4.frame.compress(data, store_size=False)),
    "lz4 of several blocks": (3, lambda data: lz4.frame.compress(data, block_size=4, block_linked=False)),
    "zstd": (4, lambda data: bytes(cramjam.zstd.compress(data))),
    "zstd without its size": (4, _streamed_zstd),
    "two frames of zstd": (4, lambda data: _streamed_zstd(data[:99]) + _streamed_zstd(data[99:])),
}


def _compressed(body: bytes, form: str) -> bytes:
    codec, compress = _FORMS[form]
    data = bytearray(made_of(compress(body)))
    data[ATTRIBUTES] = struct.pack(">h", codec)
    return bytes(data)


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("value", [b"", bytes(range(256)) * 2000, bytes(3_000_000)], ids=["none", "some", "much"])
def test_a_batch_makes_at_most_so_many_bytes(form: str, value: bytes) -> None:
    """A few KB may stand for gigabytes; the limit itself is right."""
    body = record_of(rest=encoded(-1, len(value)) + value + encoded(0))
    data = memoryview(_compressed(body, form))
    part = PackedBatch.of(data, 0, len(body))
    assert part.unpacked_bytes == len(body)
    assert part.columns()[0].value == read_sparse(data, 0, len(body))[0].value == value
    for refused in (PackedBatch.of, read_sparse):
        with pytest.raises(DamagedBatchError, match=f"to at most {len(body) - 1} bytes"):
            refused(data, 0, len(body) - 1)


def test_a_block_of_snappy_that_announces_gigabytes_is_damage() -> None:
    """Its library would make room for them."""
    data = bytearray(made_of(encoded(2**31 - 1) + b"\0"))
    data[ATTRIBUTES] = struct.pack(">h", 2)
    with pytest.raises(DamagedBatchError, match="bytes where 134217728 are left"):
        packed(bytes(data))


@pytest.mark.parametrize("count", [2, 10**6, 2**31 - 1])
def test_no_room_is_made_for_records_that_are_not_there(count: int) -> None:
    """The number in the head of a batch is its producer's."""
    data = made_of(record_of(), count=count)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedBatchError, match=f"expected {count} whole records"):
            read([packed(data)])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_part_keeps_no_other_bytes_of_its_fetch() -> None:
    """The fetch would stay in memory with the last of its batches, uncounted."""
    data = batch_of([(b"k", b"v", [], 1)])
    fetch = memoryview(data + bytes(1_000_000))
    part = PackedBatch.of(fetch[: len(data)])
    assert isinstance(part.data.obj, bytes)
    assert part.held_bytes == len(part.data.obj) == len(data) - RECORDS


def test_a_large_batch_is_cut_by_the_sizes_of_its_records() -> None:
    """They may be uneven; it stays compressed all the same."""
    values = [b"s"] * 500 + [bytes(200_000)] * 10 + [b"t"] * 5
    partition = partition_of(offset=FIRST, rows=505)
    partition.add([packed(batch_of([(None, value, [], 1) for value in values], CODECS["gzip"]))], 0.0)
    assert partition.held_bytes < 10_000
    batches = list(partition.cut(0.0, hurry=True))
    assert [record.value for batch in batches for record in batch.records] == values
    assert [len(batch) for batch in batches] == [500, *[1] * 10, 5]
