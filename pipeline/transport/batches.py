"""Micro-batches of one partition, from fetched record to committable offset: waiting, in flight, done.

Pure bookkeeping: no Kafka, no clock of its own. The rules it keeps:
- a micro-batch is consecutive records of one topic-partition, in their order, and each record is in exactly one;
- it ends at the batch policy's rows, bytes or linger, whichever comes first; a part of the rows is enough while nothing
  of its partition is in flight, for lingering would only leave the rest of the pipeline idle;
- the committable offset never passes a record whose micro-batch isn't acknowledged, in whatever order they are;
- its range of offsets is part of the state that is recorded before anybody gets it, and ranges that a former owner
  recorded are cut again, exactly, before any new one;
- what is replayed, because something derived from the log needs it once more, comes before anything else, ends exactly
  where the state begins, and is no part of it.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, starmap
from typing import NamedTuple, Protocol

import numpy as np

from pipeline.catalog import BatchPolicy
from pipeline.columns import Ints, Rows
from pipeline.transport.commit_metadata import MOST_CLOSINGS, Closing
from pipeline.transport.shared import Shared

_ENOUGH = 0.1  # of the policy's rows


class Record(Protocol):
    """A Kafka record, as any client hands it out."""

    @property
    def offset(self) -> int: ...  # noqa: D102 (Kafka's meaning, as all below)
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...  # noqa: D102


class State(NamedTuple):
    """What is to be recorded of a partition."""

    offset: int
    """That of the first record which isn't done."""
    ends: tuple[int, ...]
    """Last offset of each range in flight from there on."""
    closings: tuple[Closing, ...] = ()
    """What was decided by the clock, and is still needed."""


class Takeover(NamedTuple):
    """A partition that a deriver takes over."""

    topic_id: str
    beginning: int
    """Where the log begins."""
    committed: int
    """Up to where it is stored, and where ranges that are recorded begin."""
    closings: tuple[Closing, ...]
    """By the clock, by whoever had the partition before."""


class MicroBatch:
    """Consecutive records of one topic-partition, acknowledged as a whole.

    Args:
        owner: whose micro-batch this is.
        first: offset that its range begins with; there need not be a record of it.
        last: offset that its range ends with; likewise, in a range that is cut again.
        records: in the order of their offsets; at least one.
        size: bytes of all keys, values and headers.
        acks: how many it takes.
        replayed: whether it is below what is done: stored already, and here only for what is derived from the log.
    """

    __slots__ = ("_timestamps", "acks", "decoded", "first", "last", "owner", "records", "replayed", "size")

    def __init__(
        self,
        owner: "PartitionBatches",
        first: int,
        last: int,
        records: Sequence[Record],
        size: int,
        *,
        acks: int = 1,
        replayed: bool = False,
    ) -> None:
        self.owner = owner
        self.first = first
        self.last = last
        self.records = records
        self.size = size
        self.acks = acks
        self.replayed = replayed
        self._timestamps: Ints | None = None
        self.decoded: Shared[Rows] = Shared()
        """Rows that ingest decodes; other agents wait for them."""

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"<{self.topic}-{self.partition} [{self.first}, {self.last}]>"

    @property
    def topic(self) -> str:
        """Where the records come from."""
        return self.owner.topic

    @property
    def partition(self) -> int:
        """Of that topic."""
        return self.owner.partition

    @property
    def token(self) -> str:
        """What stands for these records wherever they are stored: the same for whoever cuts the range."""
        return f"{self.owner.topic_id}/{self.partition}/{self.first}-{self.last}"

    @property
    def again(self) -> bool:
        """Whether a former owner recorded this range, and may have stored some of it."""
        return not self.replayed and self.last <= self.owner.inherited_to

    @property
    def committed_at(self) -> float:
        """When its range was last known to be recorded, by the clock of `recorded`."""
        return self.owner.committed_at

    @property
    def values(self) -> list[bytes | None]:
        """The records' values, in order."""
        return [record.value for record in self.records]

    @property
    def timestamps(self) -> Ints:
        """The records' timestamps, ms, in order; gathered once for all that look at them."""
        if self._timestamps is None:
            self._timestamps = np.array([record.timestamp for record in self.records], np.int64)
        return self._timestamps

    @property
    def live(self) -> bool:
        """Whether the partition is still ours since this was cut; if not, another worker gets these records."""
        return self.owner.live

    def ack(self) -> None:
        """All of it is where it belongs: its offsets may be committed. Ignored when it isn't live any more.

        Each agent that it is for calls this once, and the last of them acknowledges it: ingest, and where something is
        derived from the topic, the deriver. A replayed one is for the deriver alone: ingest doesn't touch it.
        """
        self.owner.ack(self)


class PartitionBatches:
    """The micro-batches of one partition, for as long as it is assigned to this worker.

    Args:
        topic: of the partition.
        topic_id: Kafka's id of that topic.
        partition: its number.
        state: what was recorded of it; its ranges are cut again.
        policy: where a micro-batch ends.
        limit: micro-batches in flight, that is cut and not acknowledged, at most.
        start: where the records begin that will come; those below the state's offset are replayed. Without it, there.
        agents: how many a micro-batch is for; a replayed one is for one.
        on_ack: told of each acknowledged micro-batch.
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
        self.topic = topic
        self.topic_id = topic_id
        self.partition = partition
        self.live = True
        self.committed_at = float("-inf")
        self._policy = policy
        self._limit = limit
        self._agents = agents
        self._on_ack = on_ack
        self._waiting: list[Record] = []
        self._sizes: list[int] = []
        self._waiting_bytes = 0
        self._oldest_at = 0.0  # when the first of those that wait was added
        self._newest_at = 0.0  # and when the last
        self._in_flight: deque[MicroBatch] = deque()
        self._acked: set[int] = set()  # first offsets of those in flight that are acknowledged, but not the ones before
        self._done = state.offset
        self._replayed_to = state.offset
        self._position = state.offset if start is None else min(start, state.offset)  # where the next range begins
        self._known_ends = deque(state.ends)  # of ranges to be cut again
        self.inherited_to = state.ends[-1] if state.ends else -1
        self.closings = state.closings
        self._recorded = state

    def __repr__(self) -> str:
        return f"<{self.topic}-{self.partition}>"

    @property
    def held_bytes(self) -> int:
        """Bytes of keys, values and headers that wait or are in flight."""
        return self._waiting_bytes + sum(batch.size for batch in self._in_flight)

    @property
    def hungry(self) -> bool:
        """Whether the next micro-batch has room for more records."""
        within = len(self._waiting) < self._policy.max_rows and self._waiting_bytes < self._policy.max_bytes
        return within or self.incomplete

    @property
    def incomplete(self) -> bool:
        """Whether a range is to be cut again and not all of its records are here."""
        return not self.replaying and bool(self._known_ends) and self.next_offset <= self._known_ends[0]

    @property
    def replaying(self) -> bool:
        """Whether what is cut next is replayed."""
        return self._position < self._replayed_to

    @property
    def busy(self) -> bool:
        """Whether a micro-batch is in flight."""
        return bool(self._in_flight)

    @property
    def full(self) -> bool:
        """Whether as many micro-batches are in flight as may be."""
        return len(self._in_flight) >= self._limit

    @property
    def due_at(self) -> float | None:
        """When the records that wait have waited long enough, by the clock of `add`; None when none wait."""
        if not self._waiting or self.incomplete:
            return None
        enough = not self._in_flight and len(self._waiting) >= self._policy.max_rows * _ENOUGH
        whole = self.next_offset >= self._replayed_to if self.replaying else bool(self._known_ends)
        return self._oldest_at + (0 if enough or whole else self._policy.linger_seconds)

    @property
    def next_offset(self) -> int:
        """Offset of the record that is expected next."""
        return self._waiting[-1].offset + 1 if self._waiting else self._position

    @property
    def state(self) -> State:
        """What is to be recorded now."""
        cut = (batch.last for batch in self._in_flight if not batch.replayed)
        return State(self._done, (*cut, *self._known_ends), self.closings)

    @property
    def changed(self) -> bool:
        """Whether that differs from what is recorded."""
        return self.state != self._recorded

    def add(self, records: Sequence[Record], now: float) -> None:
        """Let fetched records wait for their micro-batch.

        Raises:
            ValueError: they aren't after all that came before; the offsets say where.
        """
        if not records:
            return
        if records[0].offset < self.next_offset:
            raise ValueError(
                f"{self.topic}-{self.partition}: offset {records[0].offset} came where {self.next_offset} was expected"
            )
        if not self._waiting:
            self._oldest_at = now
        self._newest_at = now
        sizes = [
            len(record.key or b"") + len(record.value or b"") + (_size_of(record.headers) if record.headers else 0)
            for record in records
        ]
        self._waiting.extend(records)
        self._sizes.extend(sizes)
        self._waiting_bytes += sum(sizes)
        self._end_replay()

    def cut(self, now: float, *, hurry: bool = False) -> Iterator[MicroBatch]:
        """The micro-batches that are complete, as far as they may be in flight.

        Args:
            now: a micro-batch that has waited long enough by this is complete.
            hurry: take what waits as complete, because memory is short.
        """
        while self._waiting and not self.full:
            if self.incomplete:
                return
            if self._known_ends and not self.replaying:
                batch = self._cut_again(self._known_ends.popleft())
            elif self.hungry and not hurry and now < (self.due_at or now):
                return
            else:
                batch = self._take(self._rows_that_fit())
            if batch.records:
                yield batch
            else:  # what the range held is gone, deleted or compacted away
                self._finish(batch)

    def ack(self, batch: MicroBatch) -> None:
        """One of the agents is done with it; ignored if the partition was closed, or it was acknowledged already."""
        if batch not in self._in_flight or batch.first in self._acked:
            return
        batch.acks -= 1
        if batch.acks == 0:
            self._finish(batch)
            self._on_ack(batch)

    def with_closing(self, closing: Closing) -> State | None:
        """The state with a closing as well; None when that can't be decided now.

        It can when everything that has come is done, the closing is at what comes next, and there is room for it. Of
        several at one offset the last says it all.
        """
        closings = dict(self.closings)
        closings[closing.offset] = max(closing.hour, closings.get(closing.offset, closing.hour))
        idle = not self._waiting and not self._in_flight and self._position == closing.offset == max(closings)
        if not (self.live and idle and len(closings) <= MOST_CLOSINGS):
            return None
        return self.state._replace(closings=tuple(starmap(Closing, closings.items())))

    def forget_closings(self, before: int) -> None:
        """Those at lower offsets aren't needed any more."""
        self.closings = tuple(closing for closing in self.closings if closing.offset >= before)

    def recorded(self, state: State, now: float) -> None:
        """The broker has taken this state, which was ours at that time."""
        self._recorded = state
        self.committed_at = now

    def close(self) -> None:
        """The partition is no longer ours: nothing of it may be inserted or committed."""
        self.live = False
        self._waiting.clear()
        self._sizes.clear()
        self._waiting_bytes = 0
        for batch in self._in_flight:
            batch.decoded.abandon()
        self._in_flight.clear()
        self._acked.clear()

    def _finish(self, batch: MicroBatch) -> None:
        self._acked.add(batch.first)
        while self._in_flight and self._in_flight[0].first in self._acked:
            done = self._in_flight.popleft()
            self._acked.discard(done.first)
            if not done.replayed:
                self._done = done.last + 1

    def _cut_again(self, end: int) -> MicroBatch:
        rows = next((row for row, record in enumerate(self._waiting) if record.offset > end), len(self._waiting))
        return self._take(rows, end)

    def _take(self, rows: int, end: int | None = None) -> MicroBatch:
        """Put so many of the records that wait in flight; their range ends with the last, or where it is known to."""
        records, size = self._waiting[:rows], sum(self._sizes[:rows])
        del self._waiting[:rows], self._sizes[:rows]
        self._waiting_bytes -= size
        self._oldest_at = self._newest_at  # there was room until the last fetch, so the rest came with it
        last = records[-1].offset if end is None else end
        replayed = self.replaying
        acks = 1 if replayed else self._agents
        batch = MicroBatch(self, self._position, last, records, size, acks=acks, replayed=replayed)
        self._position = last + 1
        self._in_flight.append(batch)
        self._end_replay()
        return batch

    def _end_replay(self) -> None:
        """Go on where the state begins, once nothing more comes from before it."""
        if self.replaying and self._waiting and self._waiting[0].offset >= self._replayed_to:
            self._position = self._replayed_to

    def _rows_that_fit(self) -> int:
        """How many of the records that wait make the next micro-batch; one that is too large makes one alone."""
        rows = min(len(self._waiting), self._policy.max_rows)
        if self.replaying:
            rows = bisect_left(self._waiting, self._replayed_to, hi=rows, key=lambda record: record.offset)
        if self._waiting_bytes <= self._policy.max_bytes:
            return rows
        within = accumulate(self._sizes[:rows])
        return max(1, sum(1 for total in within if total <= self._policy.max_bytes))


def _size_of(headers: Sequence[tuple[str, bytes | None]]) -> int:
    return sum(len(name) + len(value or b"") for name, value in headers)
