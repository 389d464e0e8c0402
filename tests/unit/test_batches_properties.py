"""Bookkeeping of one partition: properties that hold for each schedule."""

from dataclasses import dataclass, field
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.partitions import LINGER_SECONDS, MAX_BYTES, partition_of, records_at

from pipeline.catalog import BatchPolicy
from pipeline.transport.micro_batch import MicroBatch, State
from pipeline.transport.partition import PartitionBatches


@dataclass
class Run:
    """A partition under test, the offsets added to it, and the micro-batches cut from it."""

    partition: PartitionBatches
    added: list[int] = field(default_factory=list)
    batches: list[MicroBatch] = field(default_factory=list)
    acked: set[MicroBatch] = field(default_factory=set)
    now: float = 0.0

    def step(self, action: str, number: int, gaps: list[int]) -> None:
        """Add, cut, acknowledge any micro-batch (maybe again), commit, or let time pass."""
        if action == "add":
            start = self.added[-1] if self.added else number
            offsets = [start + gap for gap in accumulate(gaps)]
            self.partition.add(records_at(offsets, size=number), self.now)
            self.added += offsets
        elif action == "cut":
            self.batches += self.partition.cut(self.now, hurry=bool(number % 2))
        elif action == "ack" and self.batches:
            batch = self.batches[number % len(self.batches)]
            batch.ack()
            self.acked.add(batch)
        elif action == "commit":
            self.partition.on_broker.accept(self.partition.state, self.now)
        elif action == "wait":
            self.now += number / 50

    @property
    def state(self) -> State:
        """State to commit, by its definition."""
        done = 0
        for at, batch in enumerate(self.batches):
            if batch not in self.acked:
                return State(done, tuple(other.last for other in self.batches[at:]))
            done = batch.last + 1
        return State(done, ())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "cut", "ack", "ack", "commit", "wait"]),
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
def test_in_any_schedule_the_state_never_passes_an_unacknowledged_micro_batch(
    steps: list[tuple[str, int, list[int]]],
) -> None:
    """In any order of calls, no record is passed, repeated, reordered or left over."""
    _check(partition_of(rows=4, limit=3), steps)


class _Greedy(PartitionBatches):
    """A partition that commits up to the last acknowledged record, as a consumer without bookkeeping would."""

    def ack(self, batch: MicroBatch) -> None:
        super().ack(batch)
        self.in_flight.done = batch.last + 1


def test_the_property_notices_a_commit_past_a_gap() -> None:
    """The check fails for a partition that commits past an unacknowledged micro-batch."""
    policy = BatchPolicy(max_rows=1, max_bytes=MAX_BYTES, linger_seconds=LINGER_SECONDS)
    greedy = _Greedy("topic", "id", 7, State(0, ()), policy=policy, limit=3)
    with pytest.raises(AssertionError):
        _check(greedy, [("add", 1, [1, 1]), ("cut", 1, []), ("ack", 1, [])])
