"""Batches of the log, read by column: the records that aiokafka reads of the same bytes, or a damage that is named."""

import struct
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cramjam
import lz4.frame
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st
from support.partitions import partition_of

from pipeline.errors import HaltError
from pipeline.transport.batch_format import BatchHead, DamagedBatchError
from pipeline.transport.packed import PackedBatch, read, read_sparse, read_whole
from pipeline.transport.records import RecordColumns

_RECORDS, _COUNT, _LAST_DELTA, _ATTRIBUTES, _MAX_TIME = 61, slice(57, 61), slice(23, 27), slice(21, 23), slice(35, 43)
_CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_FIRST = 2**40

Fields = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]], int]
"""Key, value, headers and timestamp of a record."""
BYTES = st.none() | st.binary(max_size=20) | st.integers(100, 9000).map(bytes)
FIELDS = st.tuples(
    BYTES,
    BYTES,
    st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=3)), max_size=3),
    st.integers(0, 2**41),
)


def batch_of(records: Sequence[Fields], codec: int = 0, base: int = _FIRST) -> bytes:
    """Return a batch as a producer writes it."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 30)
    for number, (key, value, headers, timestamp) in enumerate(records):
        assert builder.append(number, timestamp, key, value, headers)
    data = bytearray(builder.build())
    data[:8] = base.to_bytes(8, "big")
    return bytes(data)


def packed(data: bytes, offset: int = 0) -> PackedBatch:
    return PackedBatch.of(memoryview(data), offset)


def tuples(records: Iterable[Any]) -> list[tuple[Any, ...]]:
    return [(each.offset, each.timestamp, each.key, each.value, list(each.headers)) for each in records]


def encoded(*numbers: int) -> bytes:
    """Return numbers as Kafka writes them."""
    octets = bytearray()
    for number in numbers:
        left = (number << 1) ^ (number >> 63)
        while left > 0x7F:
            octets.append(left & 0x7F | 0x80)
            left >>= 7
        octets.append(left)
    return bytes(octets)


def record_of(*, delta: int = 0, time: int = 0, rest: bytes = encoded(-1, -1, 0)) -> bytes:
    """Return one record with its length; `rest` follows the deltas."""
    body = b"\0" + encoded(time, delta) + rest
    return encoded(len(body)) + body


def made_of(body: bytes, *, count: int = 1, last_delta: int | None = None) -> bytes:
    """Return an uncompressed batch with these bytes as its records."""
    data = bytearray(batch_of([(None, None, [], 1000)])[:_RECORDS])
    data[_COUNT] = count.to_bytes(4, "big")
    data[_LAST_DELTA] = (count - 1 if last_delta is None else last_delta).to_bytes(4, "big")
    return bytes(data) + body


@pytest.mark.parametrize("codec", _CODECS.values(), ids=_CODECS)
@settings(max_examples=30)
@given(batches=st.lists(st.lists(FIELDS, min_size=1, max_size=12), min_size=1, max_size=4), data=st.data())
def test_records_are_what_aiokafka_reads(codec: int, batches: list[list[Fields]], data: st.DataObject) -> None:
    """Keys, values, headers and times of several batches at once, in any parts that they are cut into."""
    logs, expected, base = [], list[tuple[Any, ...]](), _FIRST
    for fields in batches:
        logs.append(batch_of(fields, codec, base))
        expected += tuples(DefaultRecordBatch(logs[-1]))
        base += len(fields)
    parts = [packed(log) for log in logs]
    assert tuples(read(parts)) == expected
    first, stop = sorted(data.draw(st.tuples(*[st.integers(_FIRST, base)] * 2)))
    some = [part.sliced(part.rows_below(first), part.rows_below(stop)) for part in parts]
    kept = [part for part in some if len(part)]
    assert (tuples(read(kept)) if kept else []) == expected[first - _FIRST : stop - _FIRST]
    assert [(part.first_offset, part.last_offset) for part in kept] == [
        (part.columns().first_offset, part.columns().last_offset) for part in kept
    ]


def test_a_part_from_an_offset_on_has_no_earlier_record() -> None:
    """A fetch begins with the whole of a batch."""
    part = packed(batch_of([(b"k", bytes([number]), [], 5) for number in range(10)]), _FIRST + 7)
    assert (part.first_offset, len(part)) == (_FIRST + 7, 3)
    assert [record.value for record in part.columns()] == [b"\7", b"\x08", b"\x09"]


def test_an_append_time_stands_for_the_times_of_all_records() -> None:
    """The broker sets it in the head of a batch."""
    data = bytearray(batch_of([(None, b"a", [], 1), (None, b"b", [], 2)]))
    data[_ATTRIBUTES], data[_MAX_TIME] = b"\0\x08", (7_000).to_bytes(8, "big")
    assert read([packed(bytes(data))]).timestamps.tolist() == [7_000, 7_000]


@pytest.mark.parametrize("time", [2**40, -(2**40), 2**62])
def test_times_beyond_32_bits_are_read(time: int) -> None:
    """Also times before that of the batch."""
    data = made_of(record_of(time=time))
    assert tuples(read([packed(data)])) == tuples(DefaultRecordBatch(data))


def test_a_compacted_batch_has_the_offsets_that_are_left() -> None:
    """An offset without a record is no damage; positions may lie in between."""
    data = made_of(b"".join(record_of(delta=delta) for delta in (1, 4, 9)), count=3, last_delta=12)
    assert not BatchHead.of(memoryview(data)).dense
    for offset, left in ((0, [1, 4, 9]), (_FIRST + 2, [4, 9]), (_FIRST + 10, [])):
        assert (read_sparse(memoryview(data), offset).offsets - _FIRST).tolist() == left
    empty = read_sparse(memoryview(made_of(b"", count=0, last_delta=3)), 0)
    assert len(empty) == 0


def test_numbers_need_not_have_their_shortest_form() -> None:
    """Kafka's clients accept that."""
    body = b"\0" + b"\x80\x00" + b"\x80\x80\x00" + b"\x02k" + b"\x82\x00v" + b"\x80\x00"
    data = made_of(encoded(len(body)) + body)
    assert tuples(read([packed(data)])) == [(_FIRST, 1000, b"k", b"v", [])]
    assert tuples(read([packed(data)])) == tuples(DefaultRecordBatch(data))


def test_header_names_that_are_not_utf_8_are_escaped() -> None:
    """Kafka's brokers accept them."""
    data = made_of(record_of(rest=encoded(-1, -1, 1, 2) + b"\xffa" + encoded(-1)))
    assert read([packed(data)])[0].headers == (("\\xffa", None),)


@pytest.mark.parametrize("length", [-1, -2, -(2**31), -(2**63)])
def test_any_negative_length_is_null(length: int) -> None:
    """So Kafka's clients read it, in a list of headers of any length too."""
    for count in (1, 40):
        data = made_of(record_of(rest=encoded(length, length, count) + (encoded(0) + encoded(length)) * count))
        expected = [(_FIRST, 1000, None, None, [("", None)] * count)]
        assert tuples(read([packed(data)])) == tuples(DefaultRecordBatch(data)) == expected


def test_many_headers_are_read() -> None:
    """Also by a record with more of them than are read by column."""
    headers: list[tuple[str, bytes | None]] = [(str(number), b"v") for number in range(100)]
    data = batch_of([(None, b"", headers, 1), (b"", None, headers[:3], 1), (None, None, [], 1)])
    assert tuples(read([packed(data)])) == tuples(DefaultRecordBatch(data))


_DAMAGED = {
    "no whole record": record_of()[:-1],
    "a second record": record_of() * 2,
    "a byte behind the record": record_of() + b"\0",
    "a negative length": encoded(-8) + bytes(7),
    "a key that is too long": record_of(rest=encoded(2, -1, 0)),
    "a key of any length": record_of(rest=encoded(2**62, -1, 0)),
    "a value that is too long": record_of(rest=encoded(-1, 4, 0)),
    "a byte behind the headers": record_of(rest=encoded(-1, -1, 0, 0)),
    "no number of headers": record_of(rest=encoded(-1, -1)),
    "a negative number of headers": record_of(rest=encoded(-1, -1, -1)),
    "fewer headers than announced": record_of(rest=encoded(-1, -1, 2, 0, 0)),
    "more headers than announced": record_of(rest=encoded(-1, -1, 1, 0, 0, 0, 0)),
    "a header without a name": record_of(rest=encoded(-1, -1, 1, -1, 0)),
    "a header that is too long": record_of(rest=encoded(-1, -1, 1, 0, 9)),
    "too many headers": record_of(rest=encoded(-1, -1, 2**40, 0, 0)),
    "a number of over ten bytes": record_of(rest=b"\xff" * 10 + b"\1" + encoded(-1, 0)),
    "another offset": record_of(delta=1),
    "nothing": b"",
}


@pytest.mark.parametrize("body", _DAMAGED.values(), ids=_DAMAGED)
def test_a_damaged_record_is_named(body: bytes) -> None:
    """Whatever is before and after it; the records of earlier batches can be read."""
    before, after = (
        batch_of([(b"k", b"v", [], 1)] * 3, base=_FIRST - 3),
        batch_of([(b"k", b"v", [], 1)], base=_FIRST + 1),
    )
    parts = [packed(before), packed(made_of(body)), packed(after)]
    with pytest.raises(DamagedBatchError, match=f"offsets {_FIRST} to {_FIRST} can't be read"):
        read(parts)
    whole, damage = read_whole(parts)
    assert tuples(whole) == tuples(DefaultRecordBatch(before))
    assert damage is not None
    assert damage.offsets == range(_FIRST, _FIRST + 1)


def test_a_damaged_record_of_a_micro_batch_halts_the_worker() -> None:
    """One line names the log, the batch and the way past it."""
    partition = partition_of(offset=_FIRST)
    partition.add([packed(made_of(_DAMAGED["a negative length"]))], 0.0)
    (batch,) = partition.cut(0.0, hurry=True)
    with pytest.raises(
        HaltError,
        match=rf"topic-7: .* offsets {_FIRST} to {_FIRST} can't be read: .* to {_FIRST + 1} .* `chimera replay`",
    ):
        list(batch.slices())


@pytest.mark.parametrize("deltas", [(0, 0, 1), (0, 2, 1), (1, 2, 9), (-1, 0, 1)])
def test_offsets_that_do_not_ascend_within_their_batch_are_damage(deltas: tuple[int, ...]) -> None:
    """A record would be lost, or stored twice."""
    body = b"".join(record_of(delta=delta) for delta in deltas)
    with pytest.raises(DamagedBatchError):
        read_sparse(memoryview(made_of(body, count=3, last_delta=5)), 0)
    with pytest.raises(DamagedBatchError):
        read([packed(made_of(body, count=3))])


@pytest.mark.parametrize("codec", [1, 2, 3, 4, 5, 7])
def test_bytes_that_cannot_be_decompressed_are_damage(codec: int) -> None:
    """So is a codec that Kafka doesn't have."""
    data = bytearray(made_of(record_of()))
    data[_ATTRIBUTES] = struct.pack(">h", codec)
    with pytest.raises(DamagedBatchError, match="can't be read: it"):
        packed(bytes(data))


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
    data[_ATTRIBUTES] = struct.pack(">h", codec)
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
    data[_ATTRIBUTES] = struct.pack(">h", 2)
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
    assert part.held_bytes == len(part.data.obj) == len(data) - _RECORDS


def test_a_large_batch_is_cut_by_the_sizes_of_its_records() -> None:
    """They may be uneven; it stays compressed all the same."""
    values = [b"s"] * 500 + [bytes(200_000)] * 10 + [b"t"] * 5
    partition = partition_of(offset=_FIRST, rows=505)
    partition.add([packed(batch_of([(None, value, [], 1) for value in values], _CODECS["gzip"]))], 0.0)
    assert partition.held_bytes < 10_000
    batches = list(partition.cut(0.0, hurry=True))
    assert [record.value for batch in batches for record in batch.records] == values
    assert [len(batch) for batch in batches] == [500, *[1] * 10, 5]


@given(body=st.binary(max_size=60), count=st.integers(-1, 4))
def test_any_bytes_are_read_as_aiokafka_reads_them_or_refused(body: bytes, count: int) -> None:
    """No other error, and no other records."""
    data = bytearray(made_of(body))
    data[_COUNT] = struct.pack(">i", count)
    data[_LAST_DELTA] = struct.pack(">i", count + 2)
    try:
        records = read_sparse(memoryview(bytes(data)), 0)
    except DamagedBatchError:
        return
    assert tuples(records) == tuples(DefaultRecordBatch(bytes(data)))


def test_columns_are_records_too() -> None:
    """A single one is read where it is needed, for a dead letter for example."""
    headers: list[tuple[str, bytes | None]] = [("a", b"b"), ("", None)]
    records = tuples(DefaultRecordBatch(batch_of([(b"k", None, headers, 3), (None, b"v" * 300, [], 2)])))
    laid_out = RecordColumns.of(
        list(DefaultRecordBatch(batch_of([(b"k", None, headers, 3), (None, b"v" * 300, [], 2)])))
    )
    assert tuples(laid_out) == tuples(laid_out[:1]) + tuples(laid_out[1:]) == records
    assert laid_out.sizes.tolist() == [1 + 6, 300]


def test_records_of_older_formats_are_read_as_before() -> None:
    """Old logs may have them."""
    builder = LegacyRecordBatchBuilder(1, 1, 1 << 20)
    for number in range(3):
        builder.append(number, 10 + number, b"k", b"%d" % number)
    from aiokafka.record.legacy_records import LegacyRecordBatch

    batch = list(LegacyRecordBatch(builder.build(), 1))
    assert [record.value for record in RecordColumns.of(batch)] == [b"0", b"1", b"2"]
