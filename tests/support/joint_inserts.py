"""Owners of partitions that store hours in session_stats, on a server in memory whose inserts may arrive late."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from pipeline.columns import Column
from pipeline.retry import LostPartitionError
from pipeline.rollup.assigned import AssignedPartition
from pipeline.rollup.emission import Emission, HeldTogether
from pipeline.rollup.storing import HourStorer
from pipeline.transport.broker import TopicPartition

PARTITIONS = range(3)
_HOURS_OF_A_DAY = 2  # of which an insert makes one part
ANSWERS = ("stored", "lost", "half", "refused")
"""Answers to an insert: stored; no answer, it arrives later or never; one day of it at once; refused without rows."""

Row = tuple[int, int]
"""Partition and hour; each hour of a partition has one row."""


class Server:
    """A table that remembers tokens by day, and inserts that are under way."""

    def __init__(self) -> None:
        self.rows = Counter[Row]()
        self.answers = list[str]()
        """Answers to the next inserts; later ones are stored."""
        self.inserts = 0
        self._known = set[tuple[int, str]]()
        self._under_way = list[tuple[str, list[Row]]]()

    def insert(self, _: str, columns: Mapping[str, Column], token: str, check: Callable[[], None]) -> None:
        answer = self.answers.pop(0) if self.answers else "stored"
        if answer == "refused":
            raise OSError(answer)
        check()
        self.inserts += 1
        rows = [_row_of(session) for session in np.asarray(columns["session_id"]).tolist()]
        days = sorted({_day(row) for row in rows})
        arrived = {"stored": days, "half": days[:1], "lost": []}[answer]
        self._arrive(token, [row for row in rows if _day(row) in arrived])
        if answer != "stored":
            self._under_way.append((token, rows))
            raise OSError(answer)

    def arrive_late(self, number: int) -> None:
        """Let an insert under way arrive, if there is one."""
        if self._under_way:
            self._arrive(*self._under_way.pop(number % len(self._under_way)))

    def stored_sessions(self, _: str, hour: int) -> frozenset[bytes]:
        return frozenset(_session(row) for row in self.rows if row[1] == hour)

    def hour_expired(self, _: str, __: int, *, certainly: bool) -> bool:
        return certainly and False

    def is_replicated(self, _: str) -> bool:
        return False

    def _arrive(self, token: str, rows: list[Row]) -> None:
        for day in sorted({_day(row) for row in rows}):
            if (day, token) not in self._known:
                self._known.add((day, token))
                self.rows.update(row for row in rows if _day(row) == day)


class Owner:
    """A worker with some partitions; an insert that fails is tried again, or a partition of it is lost."""

    def __init__(self, world: "World", partitions: Iterable[int]) -> None:
        self.held_partitions = {number: _Held(number, world.committed.get(number)) for number in partitions}
        self.gives_up = False
        self._world = world
        pool = ThreadPoolExecutor(1)
        emission = Emission(cast("Any", world.server), cast("Any", self), pool, max_rows=4)
        self.replayed = 0 if world.replays else 1000
        """Number of hours of each partition that are derived, at most."""
        self._storer = HourStorer(emission, lambda: cast("Any", self), pool)
        self.partitions = [self._assigned(number) for number in self.held_partitions]

    def _assigned(self, number: int) -> AssignedPartition:
        derivation: Any = _Derivation(self._world, self, number)
        tp = TopicPartition("t", number)
        delivered = self._world.known_before[number]
        return AssignedPartition(tp, "id", derivation, cast("Any", None), (None, None), 0.0, 0.0, delivered)

    def act(self, *, settle: bool) -> None:
        """Settle each partition, or store the closed hours of all; stop where a partition is lost."""
        asyncio.run(self._settle() if settle else self._store())

    async def _settle(self) -> None:
        for partition in self.partitions:
            try:
                await self._storer.settle(partition)
            except LostPartitionError:
                return

    async def _store(self) -> None:
        try:
            await self._storer.store_jointly(self.partitions)
        except LostPartitionError:
            return

    # The methods of the consumer, and of the retries.

    def held(self, tp: TopicPartition) -> Any:
        held = self.held_partitions[tp.partition]
        return held if held.live else None

    async def begin_joint_insert(self, tps: Collection[TopicPartition], name: str) -> bool:
        for tp in tps:
            self.held_partitions[tp.partition].joint_insert = name
        if self._world.commits_names:
            self.commit()
        return True

    def forget_joint_insert(self, tp: TopicPartition) -> None:
        self.held_partitions[tp.partition].joint_insert = None

    def commit(self) -> None:
        """Commit as the transport does from time to time."""
        held = {number: held.joint_insert for number, held in self.held_partitions.items() if held.live}
        self._world.committed |= held

    def check_lease(self, _: Any) -> None:
        pass

    async def run(self, held: Any, step: Callable[[], Any], _: Any) -> Any:
        while True:
            try:
                return step()
            except OSError:
                if self.gives_up:
                    lost: Any = held.parts[0] if isinstance(held, HeldTogether) else held
                    lost.live = False
                    raise LostPartitionError from None


@dataclass
class World:
    """Partitions whose hours close one after the other, their owners, and the group's commits.

    Args:
        commits_names: False to break the rule that the name of a joint insert is committed before it.
    """

    commits_names: bool = True
    server: Server = field(default_factory=Server)
    committed: dict[int, str | None] = field(default_factory=dict)
    closed: dict[int, int] = field(default_factory=lambda: dict.fromkeys(PARTITIONS, 0))
    """Number of closed hours, by partition."""
    removed: dict[int, set[int]] = field(default_factory=lambda: {number: set() for number in PARTITIONS})
    """Hours whose windows an owner removed, by partition."""
    known_before: dict[int, int] = field(default_factory=lambda: dict.fromkeys(PARTITIONS, 0))
    owners: list[Owner] = field(default_factory=list)
    replays: bool = False
    """True if the owners get the log bit by bit."""

    def reassign(self, bits: int) -> None:
        """Give the partitions to two new workers; some restore windows that were removed already."""
        if bits & 8:
            self.removed = {number: set() for number in PARTITIONS}
        self.replays = bool(bits & 16)
        self.known_before = dict(self.closed)
        first = [number for number in PARTITIONS if bits >> number & 1]
        self.owners = [Owner(self, first), Owner(self, [number for number in PARTITIONS if number not in first])]

    def step(self, action: str, number: int, answers: list[str]) -> None:
        """Do one thing."""
        owner = self.owners[number % 2]
        self.server.answers = list(answers)
        match action:
            case "close":
                self.closed[number % len(PARTITIONS)] += 1 + number // 8
            case "store" | "settle":
                owner.gives_up = number % 4 >= 2
                owner.act(settle=action == "settle")
            case "commit":
                owner.commit()
            case "replay":
                owner.replayed += 1
            case "arrive":
                self.server.arrive_late(number)
            case "reassign":
                self.reassign(number)
        self.server.answers = []

    def finish(self) -> None:
        """Let the last owners store what is left, and all inserts arrive."""
        if any(not held.live for owner in self.owners for held in owner.held_partitions.values()):
            self.reassign(7)
        for owner in self.owners:
            owner.gives_up, owner.replayed = False, 1000
            for settle in (True, False, True, False):
                owner.act(settle=settle)
        for _ in range(1000):
            self.server.arrive_late(0)
        expected = {(number, hour) for number in PARTITIONS for hour in range(self.closed[number])}
        doubled = [row for row, count in self.server.rows.items() if count > 1]
        assert not doubled, f"stored twice: {doubled}"
        assert set(self.server.rows) == expected, "lost"


@dataclass(eq=False)
class _Held:
    partition: int
    joint_insert: str | None
    topic: str = "t"
    topic_id: str = "id"
    live: bool = True
    committed_at: float = 0.0


class _Derivation(SimpleNamespace):
    """Windows of one partition, with one session in each hour."""

    def __init__(self, world: World, owner: Owner, number: int) -> None:
        super().__init__()
        self._world, self._owner, self._number = world, owner, number
        self._known_before = world.known_before[number]

    @property
    def offset(self) -> int:
        """Each record of this log closes an hour."""
        return min(self._owner.replayed, self._world.closed[self._number])

    def closed_hours(self) -> list[int]:
        return [hour for hour in range(self.offset) if hour not in self._removed]

    def may_be_stored(self, hour: int) -> bool:
        return hour < self._known_before

    def rows_of(self, hour: int) -> dict[str, Column]:
        return {"hour": np.array([hour]), "session_id": np.frombuffer(_session((self._number, hour)), "V16")}

    def stored(self, hour: int) -> None:
        self._removed.add(hour)

    @property
    def _removed(self) -> set[int]:
        return self._world.removed[self._number]


def _session(row: Row) -> bytes:
    return bytes(row) + bytes(14)


def _row_of(session: bytes) -> Row:
    return session[0], session[1]


def _day(row: Row) -> int:
    return row[1] // _HOURS_OF_A_DAY
