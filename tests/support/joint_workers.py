"""Workers that store hours in a table in memory; a worker may freeze at any request and go on much later."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, cast

from pipeline.catalog import BatchPolicy
from pipeline.errors import UnavailableError
from pipeline.retry import LostPartitionError
from pipeline.rollup.assigned import AssignedPartition
from pipeline.rollup.joint_insert import renew_together
from pipeline.transport.assignment import Assignment
from pipeline.transport.broker import Commit, Membership, TopicPartition
from pipeline.transport.commit_metadata import parse
from pipeline.transport.context import Context
from pipeline.transport.micro_batch import State
from pipeline.transport.options import TransportOptions
from pipeline.transport.partition import PartitionBatches
from support.fake_broker import FakeFlow
from support.hour_table import HOURS_OF_A_DAY, rows_of

if TYPE_CHECKING:
    from support.joint_inserts import World

ARRIVAL, LEASE = 4, 2
"""Longest time from a commit to the arrival of rows, and to their sending."""
_TOPIC, _ID = "t", "id"
_POLICY = BatchPolicy(max_rows=1, max_bytes=1024, linger_seconds=1)
_MOST_STEPS = 300  # of the event loop, until what still waits has to wait for something that is frozen


class _LeaseOverError(Exception):
    pass


class _Here(Executor):
    """Runs work at once."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        future = Future[Any]()
        try:
            future.set_result(work(*args))
        except Exception as error:  # noqa: BLE001 (the future has it)
            future.set_exception(error)
        return future


class Worker:
    """A process with some partitions; it is the broker of its transport, the consumer and the retries of its rollup.

    Args:
        world: what is outside of it, and the classes that it is made of.
    """

    def __init__(self, world: "World") -> None:
        self.gives_up = False
        """True to lose a partition at the next failure."""
        self.freezes_in = -1
        """Number of requests until it freezes; -1 to go on."""
        self.replayed = 1000
        """Number of closed hours of each partition that it has derived, at most."""
        self.grace = 0
        """Hours that it closes later than others."""
        self.partitions = list[AssignedPartition]()
        self._world = world
        self._assignment = Assignment()
        options = TransportOptions(retry_seconds=0)
        context = Context(cast("Any", self), FakeFlow(), options, logging.getLogger("quiet"), "g", self._assignment)
        self._commits = world.parts.commits(context, cast("Any", self))
        here = _Here()
        emission = world.parts.emission(
            cast("Any", world.table),
            cast("Any", self),
            here,
            max_rows=4,
            repeat_seconds=world.parts.repeat_seconds,
            clock=lambda: world.now,
        )
        self._storer = world.parts.storer(
            emission,
            lambda: cast("Any", self),
            here,
            arrival_seconds=world.parts.arrival_seconds,
            hours_of_a_day=HOURS_OF_A_DAY,
            clock=lambda: world.now,
        )
        self._committed_at = dict[PartitionBatches, int]()
        self._tasks = set[asyncio.Task[None]]()
        self._frozen: asyncio.Future[None] | None = None

    @property
    def whole(self) -> bool:
        """True if it holds all partitions that it was given."""
        return all(self.held(partition.tp) for partition in self.partitions)

    def take_over(self, numbers: list[int], *, from_scratch: bool) -> None:
        """Hold these partitions, as the group's commits say, and no others."""
        self._assignment.begin(Membership(self._world.generation, "m"))
        self.partitions = []
        for number in numbers:
            tp = TopicPartition(_TOPIC, number)
            commit = self._world.commits.get(tp)
            ranges = parse(commit.metadata, "", commit.offset, _ID) if commit else None
            state = State(0, (), (), ranges.joint_insert if ranges else None)
            self._assignment.hold(tp, PartitionBatches(_TOPIC, _ID, number, state, policy=_POLICY, limit=1))
            derivation = self._world.parts.derivation(self._world, self, number, from_scratch=from_scratch)
            self.partitions.append(AssignedPartition(tp, _ID, derivation, cast("Any", None), (None, None), 0.0, 0.0))

    async def act(self, action: str) -> None:
        """Settle each partition, or store the closed hours of all, or commit; return when it is done or frozen."""
        self._tasks.add(asyncio.create_task(getattr(self, f"_{action}")()))
        await self._go_on()

    async def thaw(self) -> None:
        """Go on where it was frozen."""
        if self._frozen:
            self._frozen.set_result(None)
            self._frozen = None
        await self._go_on()

    async def _go_on(self) -> None:
        for _ in range(_MOST_STEPS):
            for task in [task for task in self._tasks if task.done()]:
                self._tasks.remove(task)
                task.result()
            if not self._tasks or (self._frozen and len(self._tasks) == 1):
                break
            await asyncio.sleep(0)
        self.freezes_in = -1

    async def _freeze(self) -> None:
        self.freezes_in -= self.freezes_in >= 0
        if self.freezes_in == 0 and self._frozen is None:
            self._frozen = asyncio.get_running_loop().create_future()
            await self._frozen

    async def _settle(self) -> None:
        for partition in self.partitions:
            try:
                await self._storer.settle(partition)
            except LostPartitionError:
                continue

    async def _store(self) -> None:
        try:
            await self._storer.store_jointly(self.partitions)
        except LostPartitionError:
            return

    async def _commit(self) -> None:
        with contextlib.suppress(UnavailableError):
            await self._commits.commit([partition.tp for partition in self.partitions if self.held(partition.tp)])

    # The consumer.

    def held(self, tp: TopicPartition) -> PartitionBatches | None:
        """Return a partition that it holds."""
        return self._assignment.partitions.get(tp)

    async def name_joint_insert(self, joint_inserts: Any) -> bool:
        """Commit names."""
        return await self._commits.name_joint_insert(joint_inserts)

    # The broker, and what the transport tells of commits.

    async def commit(self, membership: Membership, commits: Mapping[TopicPartition, Commit]) -> bool:
        """Answer as the test says; refuse all but the members of the last generation."""
        sent_at, answers = self._world.now, self._world.broker_answers
        await self._freeze()
        answer = answers.pop(0) if answers else "taken"
        if answer == "let go":
            self._assignment.let_go({next(iter(commits))})
        if answer in {"missed", "let go"}:
            raise UnavailableError(answer)
        if membership.generation != self._world.generation or answer == "refused":
            return False
        self._world.commits.update(commits)
        await self._freeze()
        if answer == "unanswered":
            raise UnavailableError(answer)
        held = self._assignment.partitions
        self._committed_at |= {held[tp]: sent_at for tp in commits.keys() & held.keys()}
        return True

    def note_commits(self, _: Any) -> None:
        """Do nothing."""

    # The retries.

    def check_lease(self, held: Any) -> None:
        """Raise if the last commit is too old."""
        for part in getattr(held, "parts", [held]):
            if self._world.now - self._committed_at.get(part, -1000) > LEASE:
                raise _LeaseOverError

    async def run(self, held: Any, step: Callable[[], Any], _: Any) -> Any:
        """Run a step until it succeeds; give the partition up if a failure has to do that."""
        while True:
            if not held.live:
                raise LostPartitionError
            await self._freeze()
            try:
                result = step()
            except _LeaseOverError:
                if not await renew_together(self._commits.renew)(held):
                    raise LostPartitionError from None
                continue
            except OSError:
                if self.gives_up:
                    part = getattr(held, "parts", [held])[0]
                    self._assignment.let_go({TopicPartition(_TOPIC, part.partition)})
                continue
            await self._freeze()
            return result


class HoursOf:
    """The derivation of a partition whose log has one session in each hour."""

    def __init__(self, world: "World", worker: Worker, number: int, *, from_scratch: bool) -> None:
        self._world, self._worker, self._number = world, worker, number
        self._removed = set[int]() if from_scratch else set(world.removed[number])
        self._known_before = world.closed[number]
        self._grace, self._replays = worker.grace, worker.replayed < self._known_before

    def has_closed(self, hour: int) -> bool:
        """Each record of this log closes an hour."""
        derived = self._world.closed[self._number]
        if self._replays:
            derived = min(derived, self._worker.replayed)
        return hour < derived - self._grace

    def closed_hours(self) -> list[int]:
        """Return the closed hours that aren't removed."""
        hours = range(self._world.closed[self._number])
        return [hour for hour in hours if hour not in self._removed and self.has_closed(hour)]

    def may_be_stored(self, hour: int) -> bool:
        """Tell whether an hour was closed before."""
        return hour < self._known_before

    def know_before(self, hour: int) -> None:
        """Note that earlier hours may be stored."""
        self._known_before = max(self._known_before, hour)

    def rows_of(self, hour: int) -> dict[str, Any]:
        """Return the row of an hour."""
        return rows_of((self._number, hour))

    def stored(self, hour: int) -> None:
        """Remove an hour, also from the newest snapshot."""
        self._removed.add(hour)
        self._world.removed[self._number].add(hour)
