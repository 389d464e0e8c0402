"""The bookkeeping of micro-batches: where they end, and which offset may be committed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batches import MicroBatch, PartitionBatches, State
from pipeline.families import BatchPolicy

LINGER_SECONDS = 5.0
MAX_BYTES = 1024


@dataclass(frozen=True)
class Record:
    """A Kafka record with nothing but what a micro-batch looks at."""

    offset: int
    value: bytes | None = b""
    key: bytes | None = None
    timestamp: int = 0
    headers: tuple[tuple[str, bytes | None], ...] = ()


def _records(offsets: Iterable[int], size: int = 10) -> list[Record]:
    return [Record(offset, bytes(size)) for offset in offsets]


def _partition(*, rows: int = 1000, limit: int = 100, offset: int = 0, ends: tuple[int, ...] = ()) -> PartitionBatches:
    policy = BatchPolicy(max_rows=rows, max_bytes=MAX_BYTES, linger_seconds=LINGER_SECONDS)
    return PartitionBatches("topic", "id", 7, State(offset, ends), policy=policy, limit=limit)


def _cut(partition: PartitionBatches, now: float = 0.0, *, hurry: bool = False) -> list[list[int]]:
    return [[record.offset for record in batch.records] for batch in partition.cut(now, hurry=hurry)]


def test_a_micro_batch_ends_at_max_rows() -> None:
    """Full ones are cut at once; the rest waits for more."""
    partition = _partition(rows=3)
    partition.add(_records(range(7)), 0.0)
    assert _cut(partition) == [[0, 1, 2], [3, 4, 5]]
    partition.add(_records(range(7, 9)), 1.0)
    assert _cut(partition, 1.0) == [[6, 7, 8]]


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
    partition = _partition()
    partition.add([Record(offset, bytes(size - 1), b"k") for offset, size in enumerate(sizes)], 0.0)
    assert _cut(partition) == expected


def test_a_micro_batch_ends_when_its_first_record_has_waited_long_enough() -> None:
    """Later records don't extend the wait; what comes after the cut waits anew."""
    partition = _partition()
    assert partition.due_at is None
    partition.add(_records([0]), 10.0)
    partition.add(_records([1]), 14.0)
    assert partition.due_at == 15.0
    assert _cut(partition, 14.9) == []
    assert _cut(partition, 15.0) == [[0, 1]]
    partition.add(_records([2]), 15.0)
    assert _cut(partition, 19.9) == []
    assert _cut(partition, 20.0) == [[2]]


def test_what_remains_after_a_late_cut_is_as_old_as_the_fetch_it_came_with() -> None:
    """Records held back because enough is in flight don't wait another linger after that."""
    partition = _partition(rows=2, limit=2)
    partition.add(_records(range(7)), 0.0)
    first, second = partition.cut(0.0)
    first.ack()
    assert _cut(partition, 100.0) == [[4, 5]]
    second.ack()
    assert _cut(partition, 100.0) == [[6]]


def test_a_tenth_of_the_rows_is_enough_while_nothing_is_in_flight() -> None:
    """Nobody is idle for the sake of a larger micro-batch."""
    partition = _partition(rows=20)
    partition.add(_records([0]), 0.0)
    assert _cut(partition, 1.0) == []
    partition.add(_records([1]), 1.0)
    assert _cut(partition, 1.0) == [[0, 1]]
    partition.add(_records([2, 3, 4]), 1.0)
    assert _cut(partition, 1.0) == []


def test_in_a_hurry_what_waits_is_complete() -> None:
    """When memory is short, nothing waits for more records."""
    partition = _partition()
    partition.add(_records([0, 1]), 0.0)
    assert _cut(partition, hurry=True) == [[0, 1]]
    assert _cut(partition, hurry=True) == []


def test_no_more_is_in_flight_than_allowed() -> None:
    """What waits beyond the limit is cut as soon as something is acknowledged, in any order."""
    partition = _partition(rows=1, limit=2)
    partition.add(_records(range(4)), 0.0)
    first, second = partition.cut(0.0, hurry=True)
    assert partition.full
    assert _cut(partition, 99.0, hurry=True) == []
    second.ack()
    assert _cut(partition) == [], "an acknowledged one still waits for the one before it"
    first.ack()
    assert _cut(partition) == [[2], [3]]


def test_held_bytes_are_those_that_wait_or_are_in_flight() -> None:
    """Memory is given back by the acknowledgement, not by the cut."""
    partition = _partition(rows=2)
    partition.add([Record(0, bytes(5), bytes(2)), Record(1, None, bytes(3)), Record(2, bytes(7), None)], 0.0)
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
    """A record that isn't after all before it is refused, wherever those are, also when all are done."""
    partition = _partition(rows=rows)
    partition.add(_records([4, 5]), 0.0)
    batches = list(partition.cut(0.0))
    with pytest.raises(ValueError, match=f"topic-7: offset {offset} came where 6 was expected"):
        partition.add(_records([offset]), 0.0)
    for batch in [*batches, *partition.cut(0.0, hurry=True)]:
        batch.ack()
    with pytest.raises(ValueError, match=f"topic-7: offset {offset} came where 6 was expected"):
        partition.add(_records([offset]), 0.0)


def test_a_micro_batch_says_what_it_is() -> None:
    """Place, values in order, where it begins and ends, also with a hole in between, and the token of all that."""
    partition = _partition(offset=3)
    partition.add([Record(3, b"a"), Record(9, None)], 0.0)
    [batch] = partition.cut(0.0, hurry=True)
    assert (batch.topic, batch.partition, batch.first, batch.last, len(batch)) == ("topic", 7, 3, 9, 2)
    assert batch.values == [b"a", None]
    assert repr(batch) == "<topic-7 [3, 9]>"
    assert batch.token == "id/7/3-9"


def test_the_state_is_what_is_done_and_what_is_in_flight() -> None:
    """The offset passes what is acknowledged without a gap; the ends are those of all ranges after it."""
    partition = _partition(rows=2, offset=4)
    assert (partition.state, partition.changed) == (State(4, ()), False)
    partition.add(_records(range(4, 11)), 0.0)
    first, second, third = partition.cut(0.0)
    assert (partition.state, partition.changed) == (State(4, (5, 7, 9)), True)
    partition.recorded(partition.state, 0.0)
    assert not partition.changed
    second.ack()
    assert (partition.state, partition.changed) == (State(4, (5, 7, 9)), False)
    first.ack()
    assert (partition.state, partition.changed) == (State(8, (9,)), True)
    third.ack()
    assert partition.state == State(10, ())


def test_what_was_recorded_while_the_state_went_on_is_still_to_be_recorded() -> None:
    """A commit takes its time; what is acknowledged meanwhile isn't in it."""
    partition = _partition(rows=1)
    partition.add(_records([0]), 0.0)
    [batch] = partition.cut(0.0)
    sent = partition.state
    batch.ack()
    partition.recorded(sent, 3.0)
    assert partition.changed
    assert batch.recorded_at == 3.0


def test_a_micro_batch_that_was_never_recorded_by_us_says_so() -> None:
    """Its range was recorded by a former owner, who knows how long ago: no lease lasts that long."""
    partition = _partition(ends=(1,))
    partition.add(_records([0, 1]), 1e9)
    [batch] = partition.cut(1e9)
    assert batch.recorded_at == float("-inf")


def test_a_range_to_be_cut_again_is_due_when_its_records_are_here() -> None:
    """It doesn't linger, however few they are; until then nothing is due, hurry or not."""
    partition = _partition(ends=(1,), limit=1)
    partition.add(_records([0]), 1.0)
    assert (partition.due_at, partition.incomplete) == (None, True)
    assert _cut(partition, 99.0, hurry=True) == []
    partition.add(_records([1, 2]), 2.0)
    assert (partition.due_at, partition.incomplete) == (1.0, False)
    assert _cut(partition, 2.0) == [[0, 1]]


def test_a_range_to_be_cut_again_may_be_larger_than_the_policy_has_it() -> None:
    """The former owner's policy was another; fetching goes on until the range is whole."""
    partition = _partition(rows=1, ends=(3,))
    partition.add(_records(range(3), size=MAX_BYTES), 0.0)
    assert partition.hungry
    partition.add(_records(range(3, 5)), 0.0)
    assert not partition.hungry
    assert _cut(partition) == [[0, 1, 2, 3], [4]]


def test_after_close_nothing_counts() -> None:
    """A partition that was taken away has nothing to commit, whatever is acknowledged; what waits is dropped."""
    partition = _partition(rows=2)
    partition.add(_records(range(5)), 0.0)
    first, second = partition.cut(0.0)
    assert first.live
    partition.close()
    first.ack()
    assert (first.live, second.live, partition.state.offset) == (False, False, 0)
    assert _cut(partition, hurry=True) == []


@dataclass
class Run:
    """A partition under test, with what was added to it and what came out."""

    partition: PartitionBatches
    added: list[int] = field(default_factory=list)
    batches: list[MicroBatch] = field(default_factory=list)
    acked: set[MicroBatch] = field(default_factory=set)
    now: float = 0.0

    def step(self, action: str, number: int, gaps: list[int]) -> None:
        """Add, cut, acknowledge one (any, also once more), record, or let time pass."""
        if action == "add":
            start = self.added[-1] if self.added else number
            offsets = [start + gap for gap in accumulate(gaps)]
            self.partition.add(_records(offsets, size=number), self.now)
            self.added += offsets
        elif action == "cut":
            self.batches += self.partition.cut(self.now, hurry=bool(number % 2))
        elif action == "ack" and self.batches:
            batch = self.batches[number % len(self.batches)]
            batch.ack()
            self.acked.add(batch)
        elif action == "record":
            self.partition.recorded(self.partition.state, self.now)
        elif action == "wait":
            self.now += number / 50

    @property
    def state(self) -> State:
        """What is to be recorded, by the definition."""
        done = 0
        for at, batch in enumerate(self.batches):
            if batch not in self.acked:
                return State(done, tuple(other.last for other in self.batches[at:]))
            done = batch.last + 1
        return State(done, ())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "cut", "ack", "ack", "record", "wait"]),
        st.integers(0, 400),
        st.lists(st.integers(1, 3), max_size=8),
    ),
    max_size=60,
)


def _check(partition: PartitionBatches, steps: list[tuple[str, int, list[int]]]) -> None:
    run = Run(partition)
    for step in steps:
        run.step(*step)
        assert partition.state == run.state
    for _ in range(len(run.added) + 1):  # what waits comes out once what is in flight is acknowledged
        for batch in run.batches:
            batch.ack()
        run.batches += partition.cut(run.now, hurry=True)
    assert [record.offset for batch in run.batches for record in batch.records] == run.added
    assert partition.held_bytes == 0
    assert partition.state == State(run.added[-1] + 1 if run.added else 0, ())


@given(steps=STEPS)
def test_whatever_the_schedule_the_state_stays_behind_what_is_not_acknowledged(
    steps: list[tuple[str, int, list[int]]],
) -> None:
    """Any order of adding, cutting, acknowledging, recording: nothing is passed, repeated, reordered or left over."""
    _check(_partition(rows=4, limit=3), steps)


class _Greedy(PartitionBatches):
    """Commits up to the last acknowledged record, as a consumer without bookkeeping of its own would."""

    def ack(self, batch: MicroBatch) -> None:
        super().ack(batch)
        self._done = batch.last + 1


def test_the_property_notices_a_commit_past_a_gap() -> None:
    """The check above fails for a partition that commits what comes after an unacknowledged micro-batch."""
    policy = BatchPolicy(max_rows=1, max_bytes=MAX_BYTES, linger_seconds=LINGER_SECONDS)
    greedy = _Greedy("topic", "id", 7, State(0, ()), policy=policy, limit=3)
    with pytest.raises(AssertionError):
        _check(greedy, [("add", 1, [1, 1]), ("cut", 1, []), ("ack", 1, [])])
