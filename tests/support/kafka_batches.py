"""Kafka's batches in bytes, also those that no producer writes."""

from collections.abc import Iterable, Sequence
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import strategies as st

from pipeline.transport.packed import PackedBatch

RECORDS, COUNT, LAST_DELTA, ATTRIBUTES, MAX_TIME = 61, slice(57, 61), slice(23, 27), slice(21, 23), slice(35, 43)
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
FIRST = 2**40

Fields = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]], int]
"""Key, value, headers and timestamp of a record."""
BYTES = st.none() | st.binary(max_size=20) | st.integers(100, 9000).map(bytes)
FIELDS = st.tuples(
    BYTES,
    BYTES,
    st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=3)), max_size=3),
    st.integers(0, 2**41),
)


def batch_of(records: Sequence[Fields], codec: int = 0, base: int = FIRST) -> bytes:
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
    data = bytearray(batch_of([(None, None, [], 1000)])[:RECORDS])
    data[COUNT] = count.to_bytes(4, "big")
    data[LAST_DELTA] = (count - 1 if last_delta is None else last_delta).to_bytes(4, "big")
    return bytes(data) + body
