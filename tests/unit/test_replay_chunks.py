"""Bounds and chunks of a replay, without any server."""

from datetime import UTC, datetime

import pytest
from support.records import Record

from pipeline.catalog import BatchPolicy
from pipeline.errors import ConfigError
from pipeline.operations.lineage.chunks import chunks
from pipeline.operations.lineage.spans import Bound, check_partitions
from pipeline.transport.records import RecordColumns
from pipeline.transport.stretches import LogStretch

_POLICY = BatchPolicy(max_rows=10, max_bytes=1024, linger_seconds=1)
_LARGE = BatchPolicy(max_rows=10, max_bytes=1 << 20, linger_seconds=1)


def _stretch(partition: int, offsets: range, size: int = 1) -> LogStretch:
    return LogStretch(partition, offsets.start, offsets.stop, [Record(at, b"x" * size, timestamp=at) for at in offsets])


def test_a_chunk_has_records_of_one_partition_and_the_size_of_a_micro_batch() -> None:
    """The rest comes at the end."""
    stretches = [_stretch(0, range(6)), _stretch(1, range(3)), _stretch(0, range(6, 25))]
    cut = list(chunks(stretches, _POLICY))
    assert [(chunk.partition, chunk.offsets[0], chunk.offsets[-1], chunk.passed) for chunk in cut] == [
        (0, 0, 9, 10),
        (0, 10, 19, 10),
        (1, 0, 2, 3),
        (0, 20, 24, 5),
    ]
    times = [time for _, times in cut[0].slices() if times is not None for time in times.tolist()]
    assert times == list(range(10))


def test_large_values_end_a_chunk_early() -> None:
    """Memory is bounded by bytes, too."""
    cut = list(chunks([_stretch(0, range(2), 600), _stretch(0, range(2, 4), 600)], _POLICY))
    assert [len(chunk) for chunk in cut] == [2, 2]


def test_a_chunk_keeps_no_more_than_its_records() -> None:
    """A range may take one record of each fetch, and the fetch must not stay in memory; they are decoded together."""
    fetches = [RecordColumns.of([Record(10 * each + at, bytes(9999)) for at in range(10)]) for each in range(7)]
    some = [fetch[3:4] for fetch in fetches]
    (chunk,) = chunks([LogStretch(0, 10 * each, 10 * each + 10, fetch) for each, fetch in enumerate(some)], _LARGE)
    ((values, timestamps),) = chunk.slices()
    assert values.values() == [bytes(9999)] * 7
    assert timestamps is not None
    assert chunk.offsets.tolist() == [3, 13, 23, 33, 43, 53, 63]
    held = {id(each.buffer): len(each.buffer.data) for each in chunk._values}
    assert sum(held.values()) < 8 * 9999
    assert chunk._offsets[0].base is None


def test_many_partitions_hold_no_more_than_two_chunks_together() -> None:
    """The largest one goes first, so that there is work while others are read."""
    stretches = [_stretch(number, range(5 + number % 2)) for number in range(5)]
    cut = list(chunks(stretches, _POLICY))
    assert [(chunk.partition, len(chunk)) for chunk in cut] == [(1, 6), (3, 6), (0, 5), (2, 5), (4, 5)]


def test_a_chunk_counts_offsets_without_a_record() -> None:
    """They are passed all the same."""
    (chunk,) = chunks([LogStretch(0, 0, 100, [Record(50, None)])], _POLICY)
    assert (len(chunk), chunk.passed, chunk.size) == (1, 100, 0)


def test_a_bound_is_an_offset_of_all_of_some_or_a_time() -> None:
    """A partition without a bound, or without a record at the time, has the given offset."""
    assert [Bound(offset=7).of(number, {}, 99) for number in range(2)] == [7, 7]
    assert [Bound(by_partition={1: 5}).of(number, {}, 99) for number in range(2)] == [99, 5]
    assert [Bound(time=datetime(2026, 1, 1, tzinfo=UTC)).of(number, {0: 3}, 99) for number in range(2)] == [3, 99]
    assert Bound().of(0, {}, 99) == 99


def test_a_partition_that_the_topic_lacks_is_refused() -> None:
    """Its bound would have no effect."""
    check_partitions([Bound(by_partition={1: 0})], range(2), "t")
    with pytest.raises(ConfigError, match="no partition 2; expected one of 0 to 1"):
        check_partitions([Bound(by_partition={2: 0})], range(2), "t")
