"""Batches of the log, read by column: the records that aiokafka reads of the same bytes, or a damage that is named."""

import struct
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kafka_batches import (
    ATTRIBUTES,
    CODECS,
    COUNT,
    FIELDS,
    FIRST,
    LAST_DELTA,
    MAX_TIME,
    Fields,
    batch_of,
    encoded,
    made_of,
    packed,
    record_of,
    tuples,
)
from support.partitions import partition_of

from pipeline.columns import core
from pipeline.errors import HaltError
from pipeline.transport.batch_format import BatchHead, DamagedBatchError
from pipeline.transport.packed import read, read_sparse, read_whole
from pipeline.transport.records import RecordColumns


def test_these_tests_run_in_both_ways(request: pytest.FixtureRequest) -> None:
    """The name of each has the way in it, and the way is the one that is used."""
    assert (core.compiled() is None) == ("[numpy" in request.node.name)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@settings(max_examples=30)
@given(batches=st.lists(st.lists(FIELDS, min_size=1, max_size=12), min_size=1, max_size=4), data=st.data())
def test_records_are_what_aiokafka_reads(codec: int, batches: list[list[Fields]], data: st.DataObject) -> None:
    """Keys, values, headers and times of several batches at once, in any parts that they are cut into."""
    logs, expected, base = [], list[tuple[Any, ...]](), FIRST
    for fields in batches:
        logs.append(batch_of(fields, codec, base))
        expected += tuples(DefaultRecordBatch(logs[-1]))
        base += len(fields)
    parts = [packed(log) for log in logs]
    assert tuples(read(parts)) == expected
    first, stop = sorted(data.draw(st.tuples(*[st.integers(FIRST, base)] * 2)))
    some = [part.sliced(part.rows_below(first), part.rows_below(stop)) for part in parts]
    kept = [part for part in some if len(part)]
    assert (tuples(read(kept)) if kept else []) == expected[first - FIRST : stop - FIRST]
    assert [(part.first_offset, part.last_offset) for part in kept] == [
        (part.columns().first_offset, part.columns().last_offset) for part in kept
    ]


def test_a_part_from_an_offset_on_has_no_earlier_record() -> None:
    """A fetch begins with the whole of a batch."""
    part = packed(batch_of([(b"k", bytes([number]), [], 5) for number in range(10)]), FIRST + 7)
    assert (part.first_offset, len(part)) == (FIRST + 7, 3)
    assert [record.value for record in part.columns()] == [b"\7", b"\x08", b"\x09"]


def test_an_append_time_stands_for_the_times_of_all_records() -> None:
    """The broker sets it in the head of a batch."""
    data = bytearray(batch_of([(None, b"a", [], 1), (None, b"b", [], 2)]))
    data[ATTRIBUTES], data[MAX_TIME] = b"\0\x08", (7_000).to_bytes(8, "big")
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
    for offset, left in ((0, [1, 4, 9]), (FIRST + 2, [4, 9]), (FIRST + 10, [])):
        assert (read_sparse(memoryview(data), offset).offsets - FIRST).tolist() == left
    empty = read_sparse(memoryview(made_of(b"", count=0, last_delta=3)), 0)
    assert len(empty) == 0


def test_numbers_need_not_have_their_shortest_form() -> None:
    """Kafka's clients accept that."""
    body = b"\0" + b"\x80\x00" + b"\x80\x80\x00" + b"\x02k" + b"\x82\x00v" + b"\x80\x00"
    data = made_of(encoded(len(body)) + body)
    assert tuples(read([packed(data)])) == [(FIRST, 1000, b"k", b"v", [])]
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
        expected = [(FIRST, 1000, None, None, [("", None)] * count)]
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
        batch_of([(b"k", b"v", [], 1)] * 3, base=FIRST - 3),
        batch_of([(b"k", b"v", [], 1)], base=FIRST + 1),
    )
    parts = [packed(before), packed(made_of(body)), packed(after)]
    with pytest.raises(DamagedBatchError, match=f"offsets {FIRST} to {FIRST} can't be read"):
        read(parts)
    whole, damage = read_whole(parts)
    assert tuples(whole) == tuples(DefaultRecordBatch(before))
    assert damage is not None
    assert damage.offsets == range(FIRST, FIRST + 1)


def test_a_damaged_record_of_a_micro_batch_halts_the_worker() -> None:
    """One line names the log, the batch and the way past it."""
    partition = partition_of(offset=FIRST)
    partition.add([packed(made_of(_DAMAGED["a negative length"]))], 0.0)
    (batch,) = partition.cut(0.0, hurry=True)
    with pytest.raises(
        HaltError,
        match=rf"topic-7: .* offsets {FIRST} to {FIRST} can't be read: .* to {FIRST + 1} .* `chimera replay`",
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
    data[ATTRIBUTES] = struct.pack(">h", codec)
    with pytest.raises(DamagedBatchError, match="can't be read: it"):
        packed(bytes(data))


@given(body=st.binary(max_size=60), count=st.integers(-1, 4))
def test_any_bytes_are_read_as_aiokafka_reads_them_or_refused(body: bytes, count: int) -> None:
    """No other error, and no other records."""
    data = bytearray(made_of(body))
    data[COUNT] = struct.pack(">i", count)
    data[LAST_DELTA] = struct.pack(">i", count + 2)
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
