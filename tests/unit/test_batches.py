"""The bookkeeping of micro-batches: where they end, and which offset may be committed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.catalog import BatchPolicy
from pipeline.transport.commit_metadata import MOST_CLOSINGS, Closing
from pipeline.transport.micro_batch import MicroBatch, State
from pipeline.transport.partition import PartitionBatches

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


def _partition(
    *,
    rows: int = 1000,
    limit: int = 100,
    offset: int = 0,
    ends: tuple[int, ...] = (),
    closings: tuple[Closing, ...] = (),
    **options: Any,
) -> PartitionBatches:
    policy = BatchPolicy(max_rows=rows, max_bytes=MAX_BYTES, linger_seconds=LINGER_SECONDS)
    state = State(offset, ends, closings)
    return PartitionBatches("topic", "id", 7, state, policy=policy, limit=limit, **options)


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
    partition.committed(partition.state, 0.0)
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
    partition.committed(sent, 3.0)
    assert partition.changed
    assert batch.committed_at == 3.0


def test_a_micro_batch_that_was_never_recorded_by_us_says_so() -> None:
    """Its range was recorded by a former owner, who knows how long ago: no lease lasts that long."""
    partition = _partition(ends=(1,))
    partition.add(_records([0, 1]), 1e9)
    [batch] = partition.cut(1e9)
    assert batch.committed_at == float("-inf")


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
    assert partition.has_room
    partition.add(_records(range(3, 5)), 0.0)
    assert not partition.has_room
    assert _cut(partition) == [[0, 1, 2, 3], [4]]


def _cut_marked(partition: PartitionBatches) -> list[tuple[int, int, list[int], bool]]:
    """What is cut in a hurry: range, offsets, and whether it is replayed."""
    batches = partition.cut(0.0, hurry=True)
    return [(batch.first, batch.last, [record.offset for record in batch.records], batch.replayed) for batch in batches]


def test_what_is_replayed_ends_exactly_where_the_state_begins() -> None:
    """Cut by the policy below that; then the recorded range as it was, under its token, then new ones."""
    partition = _partition(rows=3, start=1, offset=6, ends=(9,))
    partition.add(_records(range(1, 12)), 0.0)
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
def test_gaps_in_what_is_replayed_do_not_matter(come: list[int], cut: list[tuple[int, int, list[int], bool]]) -> None:
    """The first range after it begins where the state does, whatever has been deleted before and after that."""
    partition = _partition(start=3, offset=10)
    partition.add(_records(come), 0.0)
    assert _cut_marked(partition) == cut


def test_what_is_replayed_is_no_part_of_the_state() -> None:
    """Neither while it is in flight nor when it is acknowledged; it takes its place among those in flight, though."""
    partition = _partition(rows=2, limit=2, start=0, offset=4, ends=(6,))
    partition.add(_records(range(9)), 0.0)
    first, second = partition.cut(0.0)
    assert (partition.full, partition.held_bytes, partition.changed) == (True, 90, False)
    assert not first.again
    second.ack()
    first.ack()
    assert (partition.state, partition.changed) == (State(4, (6,)), False)
    recorded, new = partition.cut(0.0)
    assert (recorded.again, new.again, partition.state) == (True, False, State(4, (6, 8)))
    recorded.ack()
    assert partition.state == State(7, (8,))


def test_the_last_of_what_is_replayed_does_not_linger() -> None:
    """Whatever comes after it can't be in the same micro-batch; before that it lingers as any other."""
    partition = _partition(start=0, offset=5, ends=(9,))
    partition.add(_records(range(3)), 0.0)
    assert (_cut(partition, 1.0), partition.due_at) == ([], LINGER_SECONDS)
    partition.add(_records(range(3, 5)), 1.0)
    assert _cut(partition, 1.0) == [[0, 1, 2, 3, 4]]


def test_a_start_after_what_is_done_replays_nothing() -> None:
    """What is derived may be ahead: what isn't stored comes all the same."""
    partition = _partition(start=8, offset=5)
    partition.add(_records(range(5, 10)), 0.0)
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
    """Each record once and in order; those below the state's offset are replayed, and never with others."""
    partition = _partition(rows=rows, start=start, offset=offset, agents=2)
    begin = min(start, offset)
    log = [begin + at + hole for at, hole in enumerate(accumulate(holes))]
    batches: list[MicroBatch] = []
    rest = log
    for size in sizes:
        partition.add(_records(rest[:size]), 0.0)
        batches += partition.cut(0.0, hurry=bool(size % 2))
        rest = rest[size:]
    partition.add(_records(rest), 0.0)
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
    """One of them alone doesn't do, and what both have acknowledged isn't again; a replayed one is for one of them."""
    acked: list[MicroBatch] = []
    policy = BatchPolicy(max_rows=1, max_bytes=MAX_BYTES, linger_seconds=LINGER_SECONDS)
    partition = PartitionBatches(
        "topic", "id", 7, State(1, ()), policy=policy, limit=9, start=0, agents=2, on_ack=acked.append
    )
    partition.add(_records(range(3)), 0.0)
    replayed, first, second = partition.cut(0.0)
    replayed.ack()
    first.ack()
    assert (acked, partition.state.offset) == ([replayed], 1)
    first.ack()
    first.ack()
    assert (acked, partition.state.offset) == ([replayed, first], 2)
    assert (second.owner, partition.held_bytes) == (partition, 10)


def test_a_closing_is_decided_at_what_comes_next_when_all_is_done() -> None:
    """Not with anything waiting or in flight, not elsewhere, not once the partition is gone."""
    partition, closing = _partition(offset=4, ends=(6,)), Closing(7, 100)
    partition.add(_records(range(4, 6)), 0.0)
    assert partition.with_closing(closing) is None, "waiting"
    partition.add(_records([6]), 0.0)
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
    """However often it is decided, it takes one place; and an hour never goes back."""
    partition = _partition(offset=7, closings=(Closing(3, 9), Closing(7, 100)))
    assert partition.with_closing(closing) == State(7, (), expected)


def test_closings_are_kept_until_they_are_forgotten() -> None:
    """They are part of the state whatever else happens, as many as can be recorded; to forget some is a change."""
    closings = tuple(Closing(offset, 100) for offset in range(MOST_CLOSINGS))
    partition = _partition(offset=MOST_CLOSINGS, closings=closings)
    assert (partition.state.closings, partition.changed) == (closings, False)
    assert partition.with_closing(Closing(MOST_CLOSINGS, 101)) is None, "no room"
    partition.forget_closings(2)
    assert (partition.state.closings, partition.changed) == (closings[2:], True)
    assert partition.with_closing(Closing(MOST_CLOSINGS, 101)) is not None


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
            self.partition.committed(self.partition.state, self.now)
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
        self._in_flight.done = batch.last + 1


def test_the_property_notices_a_commit_past_a_gap() -> None:
    """The check above fails for a partition that commits what comes after an unacknowledged micro-batch."""
    policy = BatchPolicy(max_rows=1, max_bytes=MAX_BYTES, linger_seconds=LINGER_SECONDS)
    greedy = _Greedy("topic", "id", 7, State(0, ()), policy=policy, limit=3)
    with pytest.raises(AssertionError):
        _check(greedy, [("add", 1, [1, 1]), ("cut", 1, []), ("ack", 1, [])])
