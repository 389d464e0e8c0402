"""A broker in memory for the transport's parts: logs, commits and a membership, without threads and without waiting."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from pipeline.catalog import BatchPolicy
from pipeline.errors import ChimeraError, UnavailableError
from pipeline.transport.broker import Commit, Fetched, Membership, TopicPartition
from pipeline.transport.commit_metadata import Closing, Ranges
from pipeline.transport.context import Context
from pipeline.transport.deriver import Takeover
from pipeline.transport.member import GroupMember
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.options import TransportOptions
from support.records import Record, parts_of

TP = TopicPartition("events", 0)
ID = "topic-id"
PLAIN = "plain"
"""Topic without a batch policy."""


@dataclass
class FakeBroker:
    """Broker with one consumer; a test changes its attributes.

    A hook is called before the request of its name, and may change anything or raise.
    """

    logs: dict[TopicPartition, list[Any]] = field(default_factory=dict)
    commits: dict[TopicPartition, Commit] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=lambda: {"events": ID})
    membership: Membership = field(default_factory=lambda: Membership(1, "member"))
    known: Membership | None = None
    """Membership whose commits are accepted; by default the current one."""
    beginnings: dict[TopicPartition, int] = field(default_factory=dict)
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    """End of each log behind whose last record offsets without a record follow."""
    stable: dict[TopicPartition, int] = field(default_factory=dict)
    """First offset of an open transaction, behind which nothing is fetched; by default there is none."""
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    hooks: dict[str, Callable[[], Any]] = field(default_factory=dict)
    rejoins: int = 0
    waits: list[float] = field(default_factory=list)
    """Longest waits of the fetches, in seconds."""
    noticed: list[set[str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def produce(self, count: int, tp: TopicPartition = TP) -> None:
        """Append records to a log."""
        log = self.logs.setdefault(tp, [])
        first = self.end(tp)
        log += [Record(offset, b"%d" % offset) for offset in range(first, first + count)]

    def delete_before(self, offset: int, tp: TopicPartition = TP) -> None:
        """Delete records from the front of a log, as retention does."""
        self.beginnings[tp] = offset

    def end(self, tp: TopicPartition) -> int:
        """Return the offset after the last record, and after what follows it without a record."""
        log = self.logs.get(tp)
        return max(log[-1].offset + 1 if log else 0, self.ends.get(tp, 0))

    def assigned(self) -> set[TopicPartition]:
        """Return all partitions that have a log."""
        return set(self.logs)

    async def topic_ids(self, topics: Iterable[str]) -> Mapping[str, str]:
        """Return the ids of the topics that exist."""
        await self._requested("topic_ids")
        return {topic: self.ids[topic] for topic in topics if topic in self.ids}

    async def read_commits(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, Commit]:
        """Return the commits."""
        await self._requested("read_commits")
        return {tp: self.commits[tp] for tp in partitions if tp in self.commits}

    async def commit(self, membership: Membership, commits: Mapping[TopicPartition, Commit]) -> bool:
        """Accept commits of the known member."""
        await self._requested("commit")
        if membership != (self.known or self.membership):
            return False
        self.commits.update(commits)
        return True

    async def earliest_offsets(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the first offsets."""
        await self._requested("earliest_offsets")
        return {tp: self.beginnings.get(tp, 0) for tp in partitions}

    async def highwaters(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the ends."""
        await self._requested("highwaters")
        return {tp: self.end(tp) for tp in partitions}

    async def at_the_end(self, tp: TopicPartition) -> bool:
        """Tell whether all records were fetched."""
        await self._requested("at_the_end")
        return self.end(tp) <= self.positions.get(tp, 0)

    async def seek(self, tp: TopicPartition, offset: int) -> None:
        """Move the position."""
        await self._requested("seek")
        self.positions[tp] = offset

    async def fetch(self, partitions: AbstractSet[TopicPartition], seconds: float) -> Mapping[TopicPartition, Fetched]:
        """Return all records from the positions on; a position outside the log is reset to its beginning."""
        await self._requested("fetch")
        self.waits.append(seconds)
        fetched = {}
        for tp in partitions:
            beginning = self.beginnings.get(tp, 0)
            position = self.positions.get(tp, 0)
            if position > self.end(tp) or position < beginning:
                position = beginning
            if (end := min(self.end(tp), self.stable.get(tp, self.end(tp)))) > position:
                records = [record for record in self.logs[tp] if position <= record.offset < end]
                fetched[tp] = Fetched(position, end, records if tp.topic == PLAIN else parts_of(records))
                self.positions[tp] = end
        return fetched

    async def rejoin(self) -> None:
        """Count."""
        await self._requested("rejoin")
        self.rejoins += 1

    async def notice(self, topics: Iterable[str]) -> None:
        """Remember."""
        self.noticed.append(set(topics))

    async def _requested(self, name: str) -> None:
        self.requests.append(name)
        await asyncio.sleep(0)  # as each request lets other tasks run
        if (hook := self.hooks.get(name)) and isinstance(made := hook(), Awaitable):
            await made

    async def until_requested(self, name: str, times: int = 1) -> None:
        """Wait until a request was made so often."""
        while self.requests.count(name) < times:  # noqa: ASYNC110 (an event for each request would be longer)
            await asyncio.sleep(0)

    def fail(self, name: str, times: int = 1, error: ChimeraError | None = None) -> None:
        """Have the next requests of a name fail, by default because the broker doesn't answer."""
        left = iter(range(times))

        def hook() -> None:
            if next(left, None) is not None:
                raise error or UnavailableError("no answer")

        self.hooks[name] = hook


@dataclass
class FakeFlow:
    """Delivery of a consumer that runs."""

    flow_active: bool = True
    should_stop: bool = False
    on_stop: Callable[[], None] = lambda: None
    """Called when delivery is stopped."""

    def stop_flow(self) -> None:
        """Stop delivery."""
        self.flow_active = False
        self.on_stop()


class FakeDeriver:
    """Deriver that needs its topic's log from an offset on, and remembers what it is told.

    Args:
        needed: offset of the first record it needs; defaults to the committed offset.
        topic: topic it derives from.
    """

    def __init__(self, needed: int | None = None, topic: str = "events") -> None:
        self.topics = frozenset({topic})
        self.taken: list[Takeover] = []
        self.missed_records = 0
        self.released: list[set[TopicPartition]] = []
        self._needed = needed

    async def take_over(self, taken: Mapping[TopicPartition, Takeover]) -> Mapping[TopicPartition, int]:
        """Remember, and return the needed offset; by default the committed one."""
        self.taken += taken.values()
        return {tp: takeover.committed if self._needed is None else self._needed for tp, takeover in taken.items()}

    def missed(self, tp: TopicPartition, records: int) -> None:
        """Count."""
        assert tp.topic in self.topics
        self.missed_records += records

    async def release(self, partitions: set[TopicPartition]) -> None:
        """Remember."""
        self.released.append(partitions)


class Worker:
    """A group member on a fake broker.

    Args:
        broker: the broker.
        rows: most records of a micro-batch.
        options: fields of TransportOptions.
    """

    def __init__(self, broker: FakeBroker, rows: int = 10, **options: Any) -> None:
        self.broker = broker
        self.flow = FakeFlow()
        self.failures: list[ChimeraError] = []
        self.now = 1e9  # so large that a linger of 1e-9 s is over at once
        policy = BatchPolicy(max_rows=rows, max_bytes=100_000, linger_seconds=1e-9)
        given: dict[str, Any] = {
            "policies": {"events": policy},
            "halt": self.failures.append,
            "retry_seconds": 0.0,
            "drain_seconds": 0.0,
        }
        self.committed: list[Mapping[TopicPartition, int]] = []
        self.member = GroupMember(
            Context(
                broker=broker,
                flow=self.flow,
                options=TransportOptions(**given | options),
                log=logging.getLogger("transport"),
                group="group",
                clock=lambda: self.now,
            ),
            on_commit=self.committed.append,
        )

    async def assign(self) -> None:
        """Do what Faust does when partitions are assigned."""
        await self.member.assign(self._prepare)

    async def _prepare(self) -> None:
        await self.member.take_over(self._seek)
        self.flow.flow_active = True

    async def _seek(self) -> None:
        await self.broker._requested("seek_to_committed")

    async def fetch(self) -> list[MicroBatch]:
        """Return the micro-batches that are delivered now."""
        delivered = await self.member.fetching.next(self.broker.assigned(), 0.0)
        return [batch for tp in sorted(delivered or {}) for batch in (delivered or {})[tp]]

    @property
    def held(self) -> set[TopicPartition]:
        """Partitions that this worker holds."""
        return set(self.member.assignment.partitions)


def committed(offset: int, *ends: int, closings: tuple[Closing, ...] = (), topic_id: str = ID) -> Commit:
    """Return a commit with these ranges in flight."""
    return Commit(offset, str(Ranges(topic_id, ends, closings)))


def ranges_of(batches: Iterable[MicroBatch]) -> list[tuple[int, int]]:
    """Return first and last offset of each micro-batch."""
    return [(batch.first, batch.last) for batch in batches]
