"""Bookkeeping of one partition: where micro-batches end, and which offset may be committed."""

from collections.abc import Sequence
from typing import Any

import pytest
from support.partitions import MAX_BYTES, cut, partition_of, records_at
from support.records import Record, parts_of

from pipeline.catalog import BatchPolicy
from pipeline.transport.micro_batch import MicroBatch, State
from pipeline.transport.partition import PartitionBatches
from pipeline.transport.records import RecordColumns


def test_a_micro_batch_ends_at_max_rows() -> None:
    """Full micro-batches are cut at once; the other records wait for more."""
    partition = partition_of(rows=3)
    partition.add(records_at(range(7)), 0.0)
    assert cut(partition) == [[0, 1, 2], [3, 4, 5]]
    partition.add(records_at(range(7, 9)), 1.0)
    assert cut(partition, 1.0) == [[6, 7, 8]]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        pytest.param([400, 400, 224, 1], [[0, 1, 2]], id="exactly-full"),
        pytest.param([400, 400, 225], [[0, 1]], id="one-byte-more"),
        pytest.param([5000, 10], [[0]], id="too-large-alone-at-the-front"),
        pytest.param([10, 5000, 10], [[0], [1]], id="too-large-alone-in-between"),
    ],
)
def test_a_micro_batch_ends_at_max_bytes(sizes: list[int], expected: list[list[int]]) -> None:
    """Keys and values together are at most max_bytes; a single record that is larger is a micro-batch alone."""
    partition = partition_of()
    partition.add(parts_of(Record(offset, bytes(size - 1), b"k") for offset, size in enumerate(sizes)), 0.0)
    assert cut(partition) == expected


def test_a_micro_batch_ends_when_its_first_record_has_waited_long_enough() -> None:
    """Later records don't extend the wait; records after the cut wait anew."""
    partition = partition_of()
    assert partition.due_at is None
    partition.add(records_at([0]), 10.0)
    partition.add(records_at([1]), 14.0)
    assert partition.due_at == 15.0
    assert cut(partition, 14.9) == []
    assert cut(partition, 15.0) == [[0, 1]]
    partition.add(records_at([2]), 15.0)
    assert cut(partition, 19.9) == []
    assert cut(partition, 20.0) == [[2]]


def test_records_left_by_a_late_cut_are_as_old_as_their_fetch() -> None:
    """Records held back because enough is in flight don't wait another linger after that."""
    partition = partition_of(rows=2, limit=2)
    partition.add(records_at(range(7)), 0.0)
    first, second = partition.cut(0.0)
    first.ack()
    assert cut(partition, 100.0) == [[4, 5]]
    second.ack()
    assert cut(partition, 100.0) == [[6]]


def test_in_a_hurry_all_waiting_records_are_complete() -> None:
    """Nothing waits for more records."""
    partition = partition_of()
    partition.add(records_at([0, 1]), 0.0)
    assert cut(partition, hurry=True) == [[0, 1]]
    assert cut(partition, hurry=True) == []


def test_no_more_is_in_flight_than_allowed() -> None:
    """Records beyond the limit are cut when the first micro-batch in flight is acknowledged."""
    partition = partition_of(rows=1, limit=2)
    partition.add(records_at(range(4)), 0.0)
    first, second = partition.cut(0.0, hurry=True)
    assert partition.full
    assert cut(partition, 99.0, hurry=True) == []
    second.ack()
    assert cut(partition) == [], "an acknowledged one still waits for the one before it"
    first.ack()
    assert cut(partition) == [[2], [3]]


def test_held_bytes_wait_or_are_in_flight() -> None:
    """Memory is given back by the acknowledgement, not by the cut."""
    partition = partition_of(rows=2)
    records = Record(0, bytes(5), bytes(2)), Record(1, None, bytes(3)), Record(2, bytes(7), None)
    partition.add(parts_of(records), 0.0)
    assert partition.held_bytes == 17
    [batch] = partition.cut(0.0)
    assert (batch.size, partition.held_bytes) == (10, 17)
    batch.ack()
    assert partition.held_bytes == 7
    partition.close()
    assert partition.held_bytes == 0


@pytest.mark.parametrize("rows", [1, 2, 3], ids=["in-flight", "some-wait", "all-wait"])
@pytest.mark.parametrize("offset", [0, 4, 5], ids=["far-back", "back", "again"])
def test_offsets_never_go_back(rows: int, offset: int) -> None:
    """A record that doesn't follow all earlier ones is refused, whether these wait, are in flight or are done."""
    partition = partition_of(rows=rows)
    partition.add(records_at([4, 5]), 0.0)
    batches = list(partition.cut(0.0))
    with pytest.raises(ValueError, match=f"topic-7: offset {offset} came where 6 was expected"):
        partition.add(records_at([offset]), 0.0)
    for batch in [*batches, *partition.cut(0.0, hurry=True)]:
        batch.ack()
    with pytest.raises(ValueError, match=f"topic-7: offset {offset} came where 6 was expected"):
        partition.add(records_at([offset]), 0.0)


def test_a_micro_batch_says_what_it_is() -> None:
    """It has topic, partition, values in order, both ends of its range, and a token."""
    partition = partition_of(offset=3)
    partition.add(parts_of([Record(3, b"a"), Record(9, None)]), 0.0)
    [batch] = partition.cut(0.0, hurry=True)
    assert (batch.topic, batch.partition, batch.first, batch.last, len(batch)) == ("topic", 7, 3, 9, 2)
    assert [record.value for record in batch.records] == [b"a", None]
    assert [record.value for record in batch.records_at([1, 0])] == [None, b"a"]
    assert repr(batch) == "<topic-7 [3, 9]>"
    assert batch.token == "id/7/3-9"


def test_some_records_are_read_without_reading_a_part_twice() -> None:
    """A micro-batch of rejected records would be read once for each of them."""
    parts = [_Counted.of([Record(first + number, b"%d" % (first + number)) for number in range(3)]) for first in (0, 3)]
    batch = MicroBatch(partition_of(), 0, 5, parts)
    assert [record.offset for record in batch.records_at([0, 2, 3, 5])] == [0, 2, 3, 5]
    assert [part.read for part in parts] == [1, 1]


class _Counted:
    """Part of the log that counts how often it is read."""

    def __init__(self, columns: RecordColumns) -> None:
        self._columns, self.read = columns, 0

    @classmethod
    def of(cls, records: Sequence[Record]) -> "_Counted":
        return cls(RecordColumns.of(records))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._columns, name)

    def __len__(self) -> int:
        return len(self._columns)

    def columns(self) -> RecordColumns:
        self.read += 1
        return self._columns


def test_the_state_has_the_committable_offset_and_the_ranges_in_flight() -> None:
    """The offset passes micro-batches that are acknowledged without a gap; the ends are those of all later ranges."""
    partition = partition_of(rows=2, offset=4)
    assert (partition.state, partition.changed) == (State(4, ()), False)
    partition.add(records_at(range(4, 11)), 0.0)
    first, second, third = partition.cut(0.0)
    assert (partition.state, partition.changed) == (State(4, (5, 7, 9)), True)
    partition.on_broker.accept(partition.state, 0.0)
    assert not partition.changed
    second.ack()
    assert (partition.state, partition.changed) == (State(4, (5, 7, 9)), False)
    first.ack()
    assert (partition.state, partition.changed) == (State(8, (9,)), True)
    third.ack()
    assert partition.state == State(10, ())


def test_a_state_that_changes_during_its_commit_is_committed_again() -> None:
    """Micro-batches that are acknowledged during a commit are in the next one."""
    partition = partition_of(rows=1)
    partition.add(records_at([0]), 0.0)
    [batch] = partition.cut(0.0)
    sent = partition.state
    batch.ack()
    partition.on_broker.accept(sent, 3.0)
    assert partition.changed
    assert batch.committed_at == 3.0


def test_a_range_of_an_earlier_owner_has_no_lease() -> None:
    """An earlier owner committed its range at an unknown time, so its lease is over."""
    partition = partition_of(ends=(1,))
    partition.add(records_at([0, 1]), 1e9)
    [batch] = partition.cut(1e9)
    assert batch.committed_at == float("-inf")


def test_after_close_nothing_counts() -> None:
    """Acknowledgements are ignored, and waiting records are dropped."""
    partition = partition_of(rows=2)
    partition.add(records_at(range(5)), 0.0)
    first, second = partition.cut(0.0)
    assert first.live
    partition.close()
    first.ack()
    assert (first.live, second.live, partition.state.offset) == (False, False, 0)
    assert cut(partition, hurry=True) == []


def test_few_rows_wait_on_after_their_linger() -> None:
    """With enough rows the linger ends a micro-batch; with fewer, the longest linger does."""
    policy = BatchPolicy(max_rows=1000, max_bytes=MAX_BYTES, linger_seconds=1.0, min_rows=3, max_linger_seconds=5.0)
    partition = PartitionBatches("topic", "id", 7, State(0, ()), policy=policy, limit=9)
    partition.add(records_at([0, 1]), now=0.0)
    assert (partition.due_at, cut(partition, 4.9)) == (5.0, [])
    partition.add(records_at([2]), now=4.9)
    assert (partition.due_at, cut(partition, 4.9)) == (1.0, [[0, 1, 2]])
    partition.add(records_at([3]), now=5.0)
    assert cut(partition, 9.9) == []
    assert cut(partition, 10.0) == [[3]]
