"""Micro-batches of one partition, from fetched record to committable offset: waiting, in flight, done.

Pure bookkeeping, without Kafka and without a clock. Its rules:
- A micro-batch holds consecutive records of one topic-partition, in order; each record is in exactly one.
- It ends at the batch policy's rows, bytes or linger, whichever comes first. `Fetching` cuts some of them early.
- The committable offset never passes a record whose micro-batch isn't acknowledged, in any order of acknowledgements.
- The range of a micro-batch is committed before the micro-batch is delivered. Ranges that an earlier owner committed
  are cut again, exactly, before any new range.
- Offsets without records, such as markers of transactions, belong to the next range. They are done when all before
  them is done and no record follows yet.
- Replayed records come before all others, end exactly at the committed offset, and are no part of the state.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import starmap

from pipeline.catalog import BatchPolicy
from pipeline.transport.broker import Damage
from pipeline.transport.commit_metadata import MOST_CLOSINGS, Closing, JointInsert
from pipeline.transport.committed import CommittedState
from pipeline.transport.in_flight import InFlight
from pipeline.transport.micro_batch import MicroBatch, State
from pipeline.transport.packed import measured
from pipeline.transport.records import LogPart
from pipeline.transport.waiting import WaitingRecords


class PartitionBatches:
    """Micro-batches of one partition, while it is assigned to this worker.

    Args:
        topic: topic of the partition.
        topic_id: Kafka's id of the topic.
        partition: number of the partition.
        state: committed state; its ranges are cut again.
        policy: limits of a micro-batch.
        limit: most micro-batches in flight, that is cut and not acknowledged.
        start: first offset to fetch; defaults to `state.offset`. Records below `state.offset` are replayed.
        agents: number of agents that get each micro-batch; one agent gets a replayed one.
        on_ack: called with each acknowledged micro-batch.
    """

    def __init__(
        self,
        topic: str,
        topic_id: str,
        partition: int,
        state: State,
        *,
        policy: BatchPolicy,
        limit: int,
        start: int | None = None,
        agents: int = 1,
        on_ack: Callable[[MicroBatch], None] = lambda _: None,
    ) -> None:
        self.topic, self.topic_id, self.partition, self.live = topic, topic_id, partition, True
        self.damage: Damage | None = None  # as of `Fetched`
        self.inherited_to = state.ends[-1] if state.ends else -1
        self.closings, self.joint_insert, self.on_broker = state.closings, state.joint_insert, CommittedState(state)
        self._policy, self._limit, self._agents, self._on_ack = policy, limit, agents, on_ack
        self.in_flight = InFlight(state.offset)
        self._replayed_to = state.offset
        self._position = state.offset if start is None else min(start, state.offset)  # first offset of the next range
        self.waiting = WaitingRecords(self._position)
        self._known_ends = deque(state.ends)  # ends of the ranges to cut again

    def __repr__(self) -> str:
        return f"<{self.topic}-{self.partition}>"

    @property
    def committed_at(self) -> float:
        """Time of the last commit that the broker accepted, by `lease_clock`."""
        return self.on_broker.at

    @property
    def held_bytes(self) -> int:
        """Bytes of records that wait or are in flight, as they were fetched."""
        return self.waiting.held_bytes + self.in_flight.held_bytes

    @property
    def has_room(self) -> bool:
        """True if the next micro-batch takes more records."""
        within = len(self.waiting) < self._policy.max_rows and self.waiting.size < self._policy.max_bytes
        return within or self.incomplete

    @property
    def incomplete(self) -> bool:
        """True if the next range is to be cut again and not all of its records are here."""
        return not self.replaying and bool(self._known_ends) and self.next_offset <= self._known_ends[0]

    @property
    def replaying(self) -> bool:
        """True if the next micro-batch is replayed."""
        return self._position < self._replayed_to

    @property
    def full(self) -> bool:
        """True if the limit of micro-batches in flight is reached."""
        return len(self.in_flight) >= self._limit

    @property
    def due_at(self) -> float | None:
        """Time at which the waiting records have waited long enough, by the clock of `add`; None if none wait."""
        if not self.waiting or self.incomplete:
            return None
        return self.waiting.oldest_at + (0 if self.whole else self._policy.linger_of(len(self.waiting)))

    @property
    def whole(self) -> bool:
        """True if the next range gets no more records: it ends at a known offset, and isn't incomplete."""
        known = self.next_offset >= self._replayed_to if self.replaying else bool(self._known_ends)
        return known and not self.incomplete

    @property
    def next_offset(self) -> int:
        """Offset that is to be fetched next."""
        return self.waiting.next_offset

    @property
    def idle_at(self) -> int | None:
        """Offset before which everything is done; None while records wait or are in flight."""
        return None if self.waiting or self.in_flight else self._position

    @property
    def state(self) -> State:
        """State to commit now."""
        ends = (*self.in_flight.ends, *self._known_ends)
        return State(self.in_flight.done, ends, self.closings, self.joint_insert)

    @property
    def changed(self) -> bool:
        """True if the state differs from the committed one."""
        return self.state != self.on_broker.state

    def add(self, parts: Sequence[LogPart], now: float, next_offset: int = -1) -> None:
        """Let fetched records wait for their micro-batch; all before `next_offset` is fetched, also without a record.

        Raises:
            ValueError: the records don't follow all earlier ones; the message has the offsets.
        """
        if parts and (got := parts[0].first_offset) < self.next_offset:
            raise ValueError(f"{self.topic}-{self.partition}: offset {got} came where {self.next_offset} was expected")
        self.waiting.add([measured(part, self._policy.max_bytes) for part in parts], now, next_offset)
        self._advance()

    def cut(self, now: float, *, hurry: bool = False) -> Iterator[MicroBatch]:
        """Yield complete micro-batches, up to the limit in flight.

        Args:
            now: records that have waited long enough by this time are a complete micro-batch.
            hurry: take all waiting records as complete.
        """
        while not (self.full or self.incomplete):
            if self._known_ends and not self.replaying:
                end = self._known_ends.popleft()
                batch = self._take(self.waiting.rows_below(end + 1), end)
            elif not self.waiting or (self.has_room and not hurry and now < (self.due_at or now)):
                return
            else:
                batch = self._take(self._rows_that_fit())
            if len(batch):
                yield batch
            else:  # all records of the range were deleted or compacted away, or their transactions aborted
                self.in_flight.finish(batch)
                self._advance()

    def ack(self, batch: MicroBatch) -> None:
        """Count one agent's acknowledgement; ignored after `close`, and for an acknowledged micro-batch."""
        if not self.in_flight.awaits(batch):
            return
        batch.acks -= 1
        if batch.acks == 0:
            self.in_flight.finish(batch)
            self._advance()
            self._on_ack(batch)

    def with_closing(self, closing: Closing) -> State | None:
        """Return the state with one more closing; None if it can't be decided now.

        All records that arrived must be done, the closing must be at the next offset, and there must be room for it.
        Of several closings at one offset, the one with the latest hour counts.
        """
        latest = max(closing.hour, dict(self.closings).get(closing.offset, closing.hour))
        closings = dict(self.closings) | {closing.offset: latest}
        if not (self.live and self.idle_at == closing.offset == max(closings) and len(closings) <= MOST_CLOSINGS):
            return None
        return self.state._replace(closings=tuple(starmap(Closing, closings.items())))

    def forget_closings(self, before: int) -> None:
        """Drop closings at lower offsets."""
        self.closings = tuple(closing for closing in self.closings if closing.offset >= before)

    def is_named(self, joint_insert: JointInsert | None) -> bool:
        """Tell whether the state to commit and the committed one name exactly this joint insert, or none."""
        return self.joint_insert == joint_insert and self.on_broker.names(joint_insert)

    def close(self) -> None:
        """Give the partition up: nothing of it may be inserted or committed any more."""
        self.live = False
        self.waiting.clear()
        self.in_flight.close()

    def _take(self, rows: int, end: int | None = None) -> MicroBatch:
        """Put the first waiting records in flight; their range ends with the last record, or at a known end."""
        parts = self.waiting.take(rows)
        last = parts[-1].last_offset if end is None else end
        acks = 1 if self.replaying else self._agents
        batch = MicroBatch(self, self._position, last, parts, acks=acks, replayed=self.replaying)
        self._position = last + 1
        self.in_flight.add(batch)
        self._advance()
        return batch

    def _advance(self) -> None:
        """Move past offsets without records: to the end of a replay, and behind all that is done."""
        first = self.waiting.first_offset if self.waiting else self.next_offset
        if self.replaying and first >= self._replayed_to:
            self._position = self._replayed_to
        if self.idle_at is not None and not (self._known_ends or self.replaying):
            self._position = self.in_flight.done = self.next_offset

    def _rows_that_fit(self) -> int:
        """Count the waiting records that make the next micro-batch; a record that is too large makes one alone."""
        rows = min(len(self.waiting), self._policy.max_rows)
        below = self.waiting.rows_below(self._replayed_to, rows) if self.replaying else rows
        return self.waiting.rows_within(below, self._policy.max_bytes)
