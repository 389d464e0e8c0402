"""A partition in Kafka with its commit and its table, and the workers that own it one after the other."""

import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pipeline.catalog import BatchPolicy
from pipeline.transport.commit_metadata import Closing, Ranges, parse
from pipeline.transport.micro_batch import MicroBatch, State
from pipeline.transport.partition import PartitionBatches
from pipeline.transport.records import RecordColumns
from support.records import Record, parts_of


def records_of(offsets: Iterable[int]) -> list[RecordColumns]:
    """Return records at these offsets, each with a value of nine bytes."""
    return parts_of(Record(offset, b"123456789") for offset in offsets)


def owner_of(state: State, *, rows: int = 10, limit: int = 3, topic_id: str = "id", **options: Any) -> PartitionBatches:
    """Return a partition with this committed state."""
    policy = BatchPolicy(max_rows=rows, max_bytes=1024, linger_seconds=1.0)
    return PartitionBatches("topic", topic_id, 0, state, policy=policy, limit=limit, **options)


@dataclass(eq=False)
class Worker:
    """A member of the group; it may not know yet that it isn't one any more."""

    partition: PartitionBatches
    start: int
    """First offset that its deriver needs."""
    closings: set[Closing]
    """Closings that its deriver applies."""
    cut: list[MicroBatch] = field(default_factory=list)
    """Micro-batches that are cut and not delivered."""
    derived: list[int] = field(default_factory=list)
    """Offsets of the records that its deriver has."""


@dataclass
class World:
    """A partition in Kafka, the group's commit, a table that remembers tokens, and all workers so far."""

    ends_are_read: bool = True
    tokens_repeat: bool = True
    commits_first: bool = True
    unanswered_is_kept: bool = False
    closings_are_read: bool = True
    end_is_looked_at: bool = True
    log: list[int] = field(default_factory=list)
    beginning: int = 0
    behind: int = 0
    """End of the log if its last offsets have no record."""
    commit: tuple[int, str] = (0, "")
    ranges: set[tuple[int, int]] = field(default_factory=set)
    rows: Counter[int] = field(default_factory=Counter)
    tokens: dict[str, list[int]] = field(default_factory=dict)
    uncommitted: list[MicroBatch] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    delivered: list[MicroBatch] = field(default_factory=list)
    inserted: list[MicroBatch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reassign(4, 2, 0)

    @property
    def end(self) -> int:
        """Offset of the next record."""
        return max(self.log[-1] + 1 if self.log else 0, self.behind)

    def step(self, action: str, which: int, number: int) -> None:  # noqa: C901 (a case for each action)
        """Run one event; `which` selects a worker or micro-batch, counted from the newest."""
        worker = self.workers[-1 - which % len(self.workers)]
        match action:
            case "produce":
                self.produce([number % 3, *[0] * (number % 5)])
            case "abort":  # records that nobody gets, and a marker
                self.behind = self.end + 1 + number % 4
            case "fetch":
                self.fetch(worker, number % 9)
            case "cut":
                worker.cut += worker.partition.cut(0.0, hurry=bool(number % 2))
                if not self.commits_first:
                    self.deliver(worker)
            case "commit":
                self.commit_state(worker, ("taken", "taken", "no reply", "not sent")[number % 4])
            case "insert" if self.delivered:
                self.insert(self.delivered[-1 - which % len(self.delivered)])
            case "ack" if self.inserted:
                self.inserted[-1 - which % len(self.inserted)].ack()
            case "reassign":
                if which:  # else the former owner doesn't know, and goes on
                    self.close(worker)
                self.reassign(1 + number % 6, 1 + number % 3, number // 6)
            case "close":
                self.close_by_clock(worker, 1 + number // 4, ("taken", "taken", "no reply", "not sent")[number % 4])
            case "retain":
                self.beginning = min(self.end, self.beginning + number % 7)

    def produce(self, holes: list[int]) -> None:
        """Append records, each after a hole of so many offsets."""
        for hole in holes:
            self.log.append(self.end + hole)

    def fetch(self, worker: Worker, most: int) -> None:
        """Fetch the next records that retention has left."""
        start = max(worker.partition.next_offset, self.beginning)
        left = [offset for offset in self.log if offset >= start]
        fetched = records_of(left[:most])
        next_offset = left[most] if most < len(left) else max(start, self.end)
        worker.partition.add(fetched, 0.0, next_offset)

    def commit_state(self, worker: Worker, outcome: str) -> None:
        """Commit; the broker accepts the newest member only, and its answer may get lost."""
        state = worker.partition.state
        if worker.partition.changed:
            if outcome == "not sent":
                return
            if worker is not self.workers[-1]:
                self.close(worker)
                return
            assert state.offset >= self.commit[0], "went back"
            self.commit = (state.offset, str(Ranges("id", state.ends, state.closings)))
            self.ranges.update((before + 1, end) for before, end in pairwise((state.offset - 1, *state.ends)))
            if outcome == "no reply":
                return
            worker.partition.on_broker.accept(state, 0.0)
        self.deliver(worker)

    def deliver(self, worker: Worker) -> None:
        """Deliver all micro-batches to the deriver, which acknowledges at once, and all but replayed ones to ingest."""
        self.delivered += [batch for batch in worker.cut if not batch.replayed]
        for batch in worker.cut:
            worker.derived += [record.offset for record in batch.records]
            batch.ack()
        worker.cut.clear()

    def close_by_clock(self, worker: Worker, hour: int, outcome: str) -> None:
        """Commit a closing as `Commits` does; the deriver applies it after the broker's confirmation."""
        closing = Closing(worker.partition.next_offset, hour)
        state = worker.partition.with_closing(closing)
        at_the_end = closing.offset >= self.end or not self.end_is_looked_at
        if state is None or not at_the_end or outcome == "not sent":
            return
        if worker is not self.workers[-1]:
            self.close(worker)
            return
        self.commit = (state.offset, str(Ranges("id", state.ends, state.closings)))
        if outcome == "taken" or self.unanswered_is_kept:
            worker.partition.closings = state.closings
            worker.partition.on_broker.accept(state, 0.0)
        if outcome == "taken":
            worker.closings.add(closing)

    def insert(self, batch: MicroBatch) -> None:
        """Insert into a table that drops a block with a known token."""
        if (batch.first, batch.last) not in self.ranges:
            self.uncommitted.append(batch)
        token = batch.token if self.tokens_repeat else secrets.token_hex(8)
        offsets = [record.offset for record in batch.records]
        if token in self.tokens:
            first, repeated = (
                [offset for offset in some if offset >= self.beginning] for some in (self.tokens[token], offsets)
            )
            assert first == repeated, "other records under the same token"
        else:
            self.tokens[token] = offsets
            self.rows.update(offsets)
        self.inserted.append(batch)

    def close(self, worker: Worker) -> None:
        """Let a worker notice that it isn't the owner; its agents' inserts may still be on their way."""
        worker.partition.close()
        worker.cut.clear()

    def reassign(self, rows: int, limit: int, back: int) -> None:
        """Let another worker, with other settings, take over from the commit; its deriver needs earlier records."""
        offset, ranges = self.read_commit()
        ends = ranges.ends if self.ends_are_read else ()
        closings = ranges.closings if self.closings_are_read else ()
        self.check_closings()
        start = max(0, offset - back)
        owner = owner_of(State(offset, ends, closings), rows=rows, limit=limit, start=start, agents=2)
        self.workers.append(Worker(owner, start, set(closings)))

    def read_commit(self) -> tuple[int, Ranges]:
        """Committed offset and ranges."""
        offset, metadata = self.commit
        return offset, parse(metadata, "here", offset) or Ranges("id")

    def check_closings(self) -> None:
        """A worker that has records from a closing's offset on applies the closing if, and only if, it is committed."""
        committed = set(self.read_commit()[1].closings)
        last_hours = dict(sorted(committed))
        for worker in self.workers:
            lost = [each for each in worker.closings if last_hours.get(each.offset, 0) < each.hour]
            assert not lost, "a closing is lost"
            ignored = [each for each in committed - worker.closings if each.offset <= max(worker.derived, default=-1)]
            assert not ignored, "a closing was ignored"

    def settle(self) -> None:
        """Let a last worker finish everything."""
        self.produce([0])
        self.behind = self.end + 2
        self.reassign(5, 2, 7)
        worker = self.workers[-1]
        while self.commit[0] < self.end:
            self.fetch(worker, 100)
            worker.cut += worker.partition.cut(0.0, hurry=True)
            self.commit_state(worker, "taken")
            for batch in self.delivered:
                if batch.live:
                    self.insert(batch)
                    batch.ack()

    def check(self) -> None:
        """Check that each record has one row, a deleted one at most one, and that each range was committed first."""
        assert max(self.rows.values(), default=1) == 1, "stored twice"
        lost = [offset for offset in self.log if offset < self.commit[0] and not self.rows[offset]]
        assert all(offset < self.beginning for offset in lost), "lost"
        assert not self.uncommitted, "not committed"
        self.check_closings()
        for worker in self.workers:
            assert all(before < after for before, after in pairwise(worker.derived)), "derived twice"
        last = self.workers[-1]
        assert set(last.derived) >= {each for each in self.log if each >= max(last.start, self.beginning)}, (
            "not derived"
        )
