"""Schedules of workers whose partitions move while they store closed hours: failures, late arrivals, frozen workers."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.rollup.emission import Emission
from pipeline.rollup.storing import HourStorer
from pipeline.transport.broker import Commit, TopicPartition
from pipeline.transport.commits import Commits
from support.hour_table import HourTable
from support.joint_workers import ARRIVAL, LEASE, HoursOf, Worker

PARTITIONS = range(3)
ANSWERS = ("stored", "lost", "half", "busy", "silent")
"""Answers to an insert: stored; no answer, the rows arrive later or never; one day of them at once; refused without
rows; stored without an answer."""
BROKER_ANSWERS = ("taken", "unanswered", "missed", "let go", "refused")
"""Answers to a commit: taken; taken without an answer; lost; lost, and a partition is let go meanwhile; refused."""
ACTIONS = ("close", "store", "settle", "commit", "arrive", "wait", "replay", "thaw", "reassign")

Step = tuple[str, int, list[str]]
"""Action, a number that means something else for each, and the answers to the next inserts and commits."""


@dataclass(frozen=True)
class Parts:
    """Parts of a worker; a test replaces one by a defective one."""

    commits: type[Commits] = Commits
    emission: type[Emission] = Emission
    storer: type[HourStorer] = HourStorer
    derivation: Callable[..., Any] = HoursOf
    arrival_seconds: float = ARRIVAL
    repeat_seconds: float = LEASE


@dataclass
class World:
    """Partitions whose hours close one after the other, two workers, frozen workers, and the group's commits."""

    parts: Parts = field(default_factory=Parts)
    now: int = 0
    """Time, in steps."""
    generation: int = 0
    commits: dict[TopicPartition, Commit] = field(default_factory=dict)
    broker_answers: list[str] = field(default_factory=list)
    closed: dict[int, int] = field(default_factory=lambda: dict.fromkeys(PARTITIONS, 0))
    """Number of closed hours, by partition."""
    removed: dict[int, set[int]] = field(default_factory=lambda: {number: set() for number in PARTITIONS})
    """Hours whose windows aren't in the newest snapshot, by partition."""

    def __post_init__(self) -> None:
        """Give all partitions to the first worker."""
        # A token has to be remembered from a commit to the last arrival, and for the steps of the takeover.
        self.table = HourTable(lambda: self.now, silence=ARRIVAL - LEASE, memory=ARRIVAL + 1)
        self.workers = [Worker(self), Worker(self)]
        self.frozen = list[Worker]()
        self.reassign(0b111)

    def reassign(self, bits: int) -> None:
        """Give the partitions of the first three bits to the first worker, all others to the second one.

        Bits 3: no snapshot; 4: the log is replayed bit by bit; 5, 6: another grace; 7: two new workers, and those
        before hear nothing of it.
        """
        if bits >> 7 & 1:
            self.frozen, self.workers = self.workers, [Worker(self), Worker(self)]
        self.generation += 1
        first = [number for number in PARTITIONS if bits >> number & 1]
        second = [number for number in PARTITIONS if number not in first]
        for worker, numbers in zip(self.workers, (first, second), strict=True):
            worker.replayed = 0 if bits >> 4 & 1 else 1000
            worker.grace = bits >> 5 & 3
            worker.take_over(numbers, from_scratch=bool(bits >> 3 & 1))

    async def step(self, action: str, number: int, answers: list[str]) -> None:
        """Do one thing."""
        everyone = [*self.workers, *self.frozen]
        worker = everyone[number % len(everyone)]
        self.table.answers = [answer for answer in answers if answer in ANSWERS]
        self.broker_answers = [answer for answer in answers if answer in BROKER_ANSWERS]
        match action:
            case "close":
                self.closed[number % len(PARTITIONS)] += 1 + number // 16 % 2
            case "store" | "settle" | "commit":
                worker.gives_up = bool(number & 4)
                worker.freezes_in = number >> 3 & 7 or -1
                await worker.act(action)
            case "wait":
                self.now += 1 + number % 4
            case "replay":
                worker.replayed += 1
            case "arrive":
                self.table.arrive_late(number)
            case "reassign":
                self.reassign(number)
            case "thaw":
                await worker.thaw()
        self.table.answers, self.broker_answers = [], []

    async def run(self, steps: list[Step]) -> None:
        """Do the steps; then let the workers store what is left, and all rows arrive that are under way.

        Raises:
            AssertionError: a row is stored twice or not at all, or a part of a worker notices that by itself.
        """
        for step in steps:
            await self.step(*step)
        for worker in (*self.workers, *self.frozen):
            worker.gives_up = False
            for _ in range(9):
                await worker.thaw()
        while self.table.arrive_late(0):
            pass
        if any(not worker.whole or worker.grace or worker.replayed < 1000 for worker in self.workers):
            self.reassign(0b111)
        for _ in range(2):
            for action in ("settle", "store"):
                for worker in self.workers:
                    await worker.act(action)
            self.now += ARRIVAL + 1
        expected = {(number, hour) for number in PARTITIONS for hour in range(self.closed[number])}
        doubled = [row for row, count in self.table.rows.items() if count > 1]
        assert not doubled, f"stored twice: {doubled}"
        assert set(self.table.rows) == expected, "lost"


def run(steps: list[Step], parts: Parts | None = None) -> World:
    """Run a schedule from its beginning to its end."""
    world = World(parts or Parts())
    asyncio.run(world.run(steps))
    return world
