"""Bookkeeping of one partition: ranges that are cut again, replayed micro-batches, closings."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.partitions import LINGER_SECONDS, MAX_BYTES, cut, partition_of, records_at

from pipeline.catalog import BatchPolicy
from pipeline.transport.commit_metadata import MOST_CLOSINGS, Closing
from pipeline.transport.micro_batch import MicroBatch, State
from pipeline.transport.partition import PartitionBatches


def test_a_range_to_be_cut_again_is_due_when_its_records_are_here() -> None:
    """The range doesn't linger, however few records it has; an incomplete one isn't due, even in a hurry."""
    partition = partition_of(ends=(1,), limit=1)
    partition.add(records_at([0]), 1.0)
    assert (partition.due_at, partition.incomplete) == (None, True)
    assert cut(partition, 99.0, hurry=True) == []
    partition.add(records_at([1, 2]), 2.0)
    assert (partition.due_at, partition.incomplete) == (1.0, False)
    assert cut(partition, 2.0) == [[0, 1]]


def test_a_range_to_be_cut_again_may_be_larger_than_the_policy_allows() -> None:
    """The earlier owner may have had another policy; fetching goes on until the range is complete."""
    partition = partition_of(rows=1, ends=(3,))
    partition.add(records_at(range(3), size=MAX_BYTES), 0.0)
    assert partition.has_room
    partition.add(records_at(range(3, 5)), 0.0)
    assert not partition.has_room
    assert cut(partition) == [[0, 1, 2, 3], [4]]


def _cut_marked(partition: PartitionBatches) -> list[tuple[int, int, list[int], bool]]:
    """Cut in a hurry; return range, offsets, and True for a replayed micro-batch."""
    batches = partition.cut(0.0, hurry=True)
    return [(batch.first, batch.last, [record.offset for record in batch.records], batch.replayed) for batch in batches]


def test_a_replay_ends_exactly_at_the_committed_offset() -> None:
    """Replayed records are cut by the policy; the committed range follows as it was, then new ones."""
    partition = partition_of(rows=3, start=1, offset=6, ends=(9,))
    partition.add(records_at(range(1, 12)), 0.0)
    assert _cut_marked(partition) == [
        (1, 3, [1, 2, 3], True),
        (4, 5, [4, 5], True),
        (6, 9, [6, 7, 8, 9], False),
        (10, 11, [10, 11], False),
    ]


@pytest.mark.parametrize(
    ("come", "cut"),
    [
        pytest.param([5, 12], [(3, 5, [5], True), (10, 12, [12], False)], id="around"),
        pytest.param([12], [(10, 12, [12], False)], id="all-of-it"),
        pytest.param([3, 9, 10], [(3, 9, [3, 9], True), (10, 10, [10], False)], id="within"),
    ],
)
def test_gaps_in_a_replay_do_not_matter(come: list[int], cut: list[tuple[int, int, list[int], bool]]) -> None:
    """The first range after the replay begins at the committed offset, whatever was deleted around it."""
    partition = partition_of(start=3, offset=10)
    partition.add(records_at(come), 0.0)
    assert _cut_marked(partition) == cut


def test_a_replay_is_no_part_of_the_state() -> None:
    """The state doesn't change with a replayed micro-batch, but the limit in flight counts it."""
    partition = partition_of(rows=2, limit=2, start=0, offset=4, ends=(6,))
    partition.add(records_at(range(9)), 0.0)
    first, second = partition.cut(0.0)
    assert (partition.full, partition.held_bytes, partition.changed) == (True, 90, False)
    assert not first.again
    second.ack()
    first.ack()
    assert (partition.state, partition.changed) == (State(4, (6,)), False)
    committed, new = partition.cut(0.0)
    assert (committed.again, new.again, partition.state) == (True, False, State(4, (6, 8)))
    committed.ack()
    assert partition.state == State(7, (8,))


def test_the_last_replayed_micro_batch_does_not_linger() -> None:
    """No later record can join the last replayed micro-batch, so it is due at once; earlier ones linger."""
    partition = partition_of(start=0, offset=5, ends=(9,))
    partition.add(records_at(range(3)), 0.0)
    assert (cut(partition, 1.0), partition.due_at) == ([], LINGER_SECONDS)
    partition.add(records_at(range(3, 5)), 1.0)
    assert cut(partition, 1.0) == [[0, 1, 2, 3, 4]]


def test_a_start_after_the_committed_offset_replays_nothing() -> None:
    """The deriver may be ahead of the committed offset; records from there on are delivered all the same."""
    partition = partition_of(start=8, offset=5)
    partition.add(records_at(range(5, 10)), 0.0)
    assert _cut_marked(partition) == [(5, 9, [5, 6, 7, 8, 9], False)]


@given(
    holes=st.lists(st.integers(0, 3), max_size=30),
    sizes=st.lists(st.integers(1, 6), min_size=1),
    rows=st.integers(1, 5),
    start=st.integers(0, 40),
    offset=st.integers(0, 40),
)
def test_whatever_is_fetched_at_once_the_cut_is_exact(
    holes: list[int], sizes: list[int], rows: int, start: int, offset: int
) -> None:
    """Each record is cut once and in order; records below the committed offset are replayed, apart from others."""
    partition = partition_of(rows=rows, start=start, offset=offset, agents=2)
    begin = min(start, offset)
    log = [begin + at + hole for at, hole in enumerate(accumulate(holes))]
    batches: list[MicroBatch] = []
    rest = log
    for size in sizes:
        partition.add(records_at(rest[:size]), 0.0)
        batches += partition.cut(0.0, hurry=bool(size % 2))
        rest = rest[size:]
    partition.add(records_at(rest), 0.0)
    batches += partition.cut(0.0, hurry=True)
    assert [record.offset for batch in batches for record in batch.records] == log
    for batch in batches:
        assert {record.offset < offset for record in batch.records} == {batch.replayed}
        assert batch.replayed == (batch.last < offset) == (batch.first < offset)
    assert partition.state == State(offset, tuple(batch.last for batch in batches if not batch.replayed))
    for batch in batches:
        batch.ack()
        if not batch.replayed:
            batch.ack()
    assert partition.state == State(max(offset, log[-1] + 1) if log else offset, ())


def test_a_micro_batch_for_two_agents_is_acknowledged_by_both() -> None:
    """It takes both acknowledgements, and later ones are ignored; a replayed micro-batch takes one."""
    acked: list[MicroBatch] = []
    policy = BatchPolicy(max_rows=1, max_bytes=MAX_BYTES, linger_seconds=LINGER_SECONDS)
    partition = PartitionBatches(
        "topic", "id", 7, State(1, ()), policy=policy, limit=9, start=0, agents=2, on_ack=acked.append
    )
    partition.add(records_at(range(3)), 0.0)
    replayed, first, second = partition.cut(0.0)
    replayed.ack()
    first.ack()
    assert (acked, partition.state.offset) == ([replayed], 1)
    first.ack()
    first.ack()
    assert (acked, partition.state.offset) == ([replayed, first], 2)
    assert (second.owner, partition.held_bytes) == (partition, 10)


def test_a_closing_is_decided_at_the_next_offset_when_all_is_done() -> None:
    """Records that wait or are in flight, another offset, or a closed partition prevent it."""
    partition, closing = partition_of(offset=4, ends=(6,)), Closing(7, 100)
    partition.add(records_at(range(4, 6)), 0.0)
    assert partition.with_closing(closing) is None, "waiting"
    partition.add(records_at([6]), 0.0)
    [batch] = partition.cut(0.0)
    assert partition.with_closing(closing) is None, "in flight"
    batch.ack()
    assert partition.with_closing(Closing(6, 100)) is None, "before"
    assert partition.with_closing(Closing(8, 100)) is None, "after"
    assert partition.with_closing(closing) == State(7, (), (closing,))
    assert partition.state == State(7, ()), "not decided by asking"
    partition.close()
    assert partition.with_closing(closing) is None, "gone"


@pytest.mark.parametrize(
    ("closing", "expected"),
    [
        pytest.param(Closing(7, 101), (Closing(3, 9), Closing(7, 101)), id="later"),
        pytest.param(Closing(7, 100), (Closing(3, 9), Closing(7, 100)), id="again"),
        pytest.param(Closing(7, 99), (Closing(3, 9), Closing(7, 100)), id="earlier"),
    ],
)
def test_of_closings_at_one_offset_the_last_hour_counts(closing: Closing, expected: tuple[Closing, ...]) -> None:
    """A second closing at an offset replaces the first, and its hour never goes back."""
    partition = partition_of(offset=7, closings=(Closing(3, 9), Closing(7, 100)))
    assert partition.with_closing(closing) == State(7, (), expected)


def test_closings_are_kept_until_they_are_forgotten() -> None:
    """Closings are part of the state, up to the limit; to forget some changes the state."""
    closings = tuple(Closing(offset, 100) for offset in range(MOST_CLOSINGS))
    partition = partition_of(offset=MOST_CLOSINGS, closings=closings)
    assert (partition.state.closings, partition.changed) == (closings, False)
    assert partition.with_closing(Closing(MOST_CLOSINGS, 101)) is None, "no room"
    partition.forget_closings(2)
    assert (partition.state.closings, partition.changed) == (closings[2:], True)
    assert partition.with_closing(Closing(MOST_CLOSINGS, 101)) is not None
