"""Damaged records of the real families, and damaged batches in every codec: core and numpy say the same of them."""

import struct
from collections.abc import Callable
from typing import Any

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.avro_cases import damaged
from support.both_paths import by_both, decoded
from support.events import events
from support.kafka_batches import (
    ATTRIBUTES,
    CODECS,
    COUNT,
    FIELDS,
    LAST_DELTA,
    RECORDS,
    Fields,
    batch_of,
    made_of,
    record_of,
)

from pipeline.catalog import load_catalog
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.producer.encode import Encoder
from pipeline.transport.batch_format import BatchHead, DamagedBatchError
from pipeline.transport.packed import PackedBatch, read_sparse, read_whole

_FAMILIES = {family.name: family for family in load_catalog(Settings()).families}
_FRAME_BYTES = 10
_MOST = 1 << 22
_COMPRESS: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    1: lambda data: bytes(cramjam.gzip.compress(data)),
    2: lambda data: bytes(cramjam.snappy.compress_raw(data)),
    3: lambda data: bytes(cramjam.lz4.compress(data)),
    4: lambda data: bytes(cramjam.zstd.compress(data)),
}


@pytest.mark.parametrize("name", _FAMILIES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_records_of_a_family_get_the_same_rows_and_verdicts(name: str, data: st.DataObject) -> None:
    """Their frames are whole, so that the schema is found."""
    encoder = Encoder(_FAMILIES[name])
    whole = [encoder.encode(event).value for event in events(name, 20)]
    frames = data.draw(st.lists(st.sampled_from(whole), min_size=1, max_size=12))
    values = [
        frame if data.draw(st.integers(0, 3)) == 0 else frame[:_FRAME_BYTES] + data.draw(damaged(frame[_FRAME_BYTES:]))
        for frame in frames
    ]
    decoded(Decoder(_FAMILIES[name]), values, [1_769_817_600_000] * len(values))


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@settings(max_examples=60, deadline=None)
@given(records=st.lists(FIELDS, min_size=1, max_size=8), data=st.data())
def test_damaged_batches_have_the_same_records_or_the_same_fault(
    codec: int, records: list[Fields], data: st.DataObject
) -> None:
    """Damage within the records, within what the codec reads, and counts in the head that lie."""
    whole, rows = batch_of(records), len(records)
    body = data.draw(st.one_of(st.just(whole[RECORDS:]), damaged(whole[RECORDS:])))
    packed = _COMPRESS[codec](body)
    batch = bytearray(whole[:RECORDS] + (packed if data.draw(st.integers(0, 5)) else data.draw(damaged(packed))))
    batch[ATTRIBUTES] = struct.pack(">h", codec | data.draw(st.sampled_from([0, 0, 8])))
    count = data.draw(st.sampled_from([rows] * 4 + [rows + 1, rows - 1, 2**31 - 1, -(2**31)]))
    last_delta = data.draw(st.sampled_from([rows - 1] * 3 + [count - 1, rows + 3, 2**31 - 1, -1]))
    batch[COUNT], batch[LAST_DELTA] = struct.pack(">i", count), struct.pack(">i", max(last_delta, -(2**31)))
    compiled, reference = by_both(lambda: (_sparse(bytes(batch)), _dense(bytes(batch))))
    assert compiled == reference


@settings(max_examples=200, deadline=None)
@given(deltas=st.lists(st.integers(-1, 3), min_size=1, max_size=4), last_delta=st.integers(-1, 4))
def test_offsets_of_any_order_are_the_same_records_or_the_same_fault(deltas: list[int], last_delta: int) -> None:
    """Also those beyond the last one that the head names."""
    body = b"".join(record_of(delta=delta) for delta in deltas)
    batch = made_of(body, count=len(deltas), last_delta=max(last_delta, 0))
    compiled, reference = by_both(lambda: (_sparse(batch), _dense(batch)))
    assert compiled == reference


def _sparse(batch: bytes) -> Any:
    try:
        return _plain(read_sparse(memoryview(batch), 0, _MOST))
    except DamagedBatchError as error:
        return str(error), error.offsets


def _dense(batch: bytes) -> Any:
    if not BatchHead.of(memoryview(batch)).dense:
        return None
    try:
        columns, damage = read_whole([PackedBatch.of(memoryview(batch), 0, _MOST)])
    except DamagedBatchError as error:
        return str(error)
    # The core measures LZ4 without reading it, so that such damage shows only here.
    return str(damage) if damage and not len(columns) else (_plain(columns), str(damage))


def _plain(columns: Any) -> Any:
    spans = (columns.keys, columns.values, columns.headers)
    return [
        columns.offsets.tolist(),
        columns.timestamps.tolist(),
        *([each.lengths.tolist(), each.values()] for each in spans),
    ]
