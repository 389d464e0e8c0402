"""Micro-batches of one partition, from fetched record to committable offset: waiting, in flight, done.

Pure bookkeeping: no Kafka, no clock of its own. The rules it keeps:
- a micro-batch is consecutive records of one topic-partition, in their order, and each record is in exactly one;
- it ends at the batch policy's rows, bytes or linger, whichever comes first; a part of the rows is enough while nothing
  of its partition is in flight, for lingering would only leave the rest of the pipeline idle;
- the committable offset never passes a record whose micro-batch isn't acknowledged, in whatever order they are.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Protocol

from pipeline.families import BatchPolicy

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


class MicroBatch:
    """Consecutive records of one topic-partition, acknowledged as a whole.

    Args:
        topic: where the records come from.
        partition: of that topic.
        records: in the order of their offsets; at least one.
        size: bytes of all keys and values.
        owner: where to acknowledge it.
    """

    __slots__ = ("_owner", "partition", "records", "size", "topic")

    def __init__(
        self, topic: str, partition: int, records: Sequence[Record], size: int, owner: "PartitionBatches"
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.records = records
        self.size = size
        self._owner = owner

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"<{self.topic}-{self.partition} [{self.first}, {self.last}]>"

    @property
    def first(self) -> int:
        """Offset of the first record."""
        return self.records[0].offset

    @property
    def last(self) -> int:
        """Offset of the last record."""
        return self.records[-1].offset

    @property
    def values(self) -> list[bytes | None]:
        """The records' values, in order."""
        return [record.value for record in self.records]

    @property
    def live(self) -> bool:
        """Whether the partition is still ours since this was cut; if not, another worker gets these records."""
        return self._owner.live

    def ack(self) -> None:
        """All of it is where it belongs: its offsets may be committed. Ignored when it isn't live any more."""
        self._owner.ack(self)


class PartitionBatches:
    """The micro-batches of one partition, for as long as it is assigned to this worker.

    Args:
        topic: of the partition.
        partition: its number.
        policy: where a micro-batch ends.
        limit: micro-batches in flight, that is cut and not acknowledged, at most.
        on_ack: told of each acknowledged micro-batch.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        policy: BatchPolicy,
        limit: int,
        on_ack: Callable[[MicroBatch], None] = lambda _: None,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.live = True
        self._policy = policy
        self._limit = limit
        self._on_ack = on_ack
        self._waiting: list[Record] = []
        self._sizes: list[int] = []
        self._waiting_bytes = 0
        self._oldest_at = 0.0  # when the first of those that wait was added
        self._newest_at = 0.0  # and when the last
        self._in_flight: deque[MicroBatch] = deque()
        self._acked: set[int] = set()  # first offsets of those in flight that are acknowledged, but not the ones before
        self._done: int | None = None
        self._committed: int | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes of keys and values that wait or are in flight."""
        return self._waiting_bytes + sum(batch.size for batch in self._in_flight)

    @property
    def hungry(self) -> bool:
        """Whether the next micro-batch has room for more records."""
        return len(self._waiting) < self._policy.max_rows and self._waiting_bytes < self._policy.max_bytes

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
        if not self._waiting:
            return None
        enough = not self._in_flight and len(self._waiting) >= self._policy.max_rows * _ENOUGH
        return self._oldest_at + (0 if enough else self._policy.linger_seconds)

    @property
    def committable(self) -> int | None:
        """The offset to commit: that of the first record which isn't done; None when there is nothing new to commit."""
        return None if self._done == self._committed else self._done

    def add(self, records: Sequence[Record], now: float) -> None:
        """Let fetched records wait for their micro-batch.

        Raises:
            ValueError: they aren't after all that came before; the offsets say where.
        """
        if not records:
            return
        after = self._last_offset()
        if after is not None and records[0].offset <= after:
            raise ValueError(f"{self.topic}-{self.partition}: offset {records[0].offset} came after {after}")
        if not self._waiting:
            self._oldest_at = now
        self._newest_at = now
        sizes = [len(record.key or b"") + len(record.value or b"") for record in records]
        self._waiting.extend(records)
        self._sizes.extend(sizes)
        self._waiting_bytes += sum(sizes)

    def cut(self, now: float, *, hurry: bool = False) -> Iterator[MicroBatch]:
        """The micro-batches that are complete, as far as they may be in flight.

        Args:
            now: a micro-batch that has waited long enough by this is complete.
            hurry: take what waits as complete, because memory is short.
        """
        while self._waiting and not self.full:
            due = self.due_at
            if self.hungry and not hurry and due is not None and now < due:
                return
            yield self._cut_one()

    def ack(self, batch: MicroBatch) -> None:
        """Acknowledge a micro-batch; one of a partition that was closed, or acknowledged already, is ignored."""
        if batch not in self._in_flight or batch.first in self._acked:
            return
        self._acked.add(batch.first)
        while self._in_flight and self._in_flight[0].first in self._acked:
            done = self._in_flight.popleft()
            self._acked.discard(done.first)
            self._done = done.last + 1
        self._on_ack(batch)

    def committed(self, offset: int) -> None:
        """The broker has taken the commit of this offset."""
        self._committed = offset

    def close(self) -> None:
        """The partition is no longer ours: nothing of it may be inserted or committed."""
        self.live = False
        self._waiting.clear()
        self._sizes.clear()
        self._waiting_bytes = 0
        self._in_flight.clear()
        self._acked.clear()

    def _last_offset(self) -> int | None:
        if self._waiting:
            return self._waiting[-1].offset
        if self._in_flight:
            return self._in_flight[-1].last
        return None if self._done is None else self._done - 1

    def _cut_one(self) -> MicroBatch:
        rows = self._rows_that_fit()
        records, size = self._waiting[:rows], sum(self._sizes[:rows])
        del self._waiting[:rows], self._sizes[:rows]
        self._waiting_bytes -= size
        self._oldest_at = self._newest_at  # there was room until the last fetch, so the rest came with it
        batch = MicroBatch(self.topic, self.partition, records, size, self)
        self._in_flight.append(batch)
        return batch

    def _rows_that_fit(self) -> int:
        """How many of the records that wait make the next micro-batch; one that is too large makes one alone."""
        rows = min(len(self._waiting), self._policy.max_rows)
        if self._waiting_bytes <= self._policy.max_bytes:
            return rows
        within = accumulate(self._sizes[:rows])
        return max(1, sum(1 for total in within if total <= self._policy.max_bytes))
