"""Storage of the closed hours of assigned partitions, whose windows are removed after that.

Hours that nobody can have stored go into one insert, with those of all partitions. Each other hour goes by itself, and
is looked for first.

The invariant: as long as a partition's committed state names a joint insert, its rows are sent only under the joint
insert's token; without a name, only under the tokens of its hours. The name changes only here, by a commit that the
broker has answered, and only while no insert of the partition is under way.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from typing import NamedTuple

from pipeline.columns import Column
from pipeline.retry import lease_clock
from pipeline.rollup.assigned import AssignedPartition, RollupConsumer, in_thread
from pipeline.rollup.emission import Emission
from pipeline.transport.commit_metadata import JointInsert
from pipeline.transport.partition import PartitionBatches

_HOURS_OF_A_DAY = 24


class _Hour(NamedTuple):
    """A closed hour of a partition, and its rows."""

    partition: AssignedPartition
    held: PartitionBatches
    number: int
    rows: Mapping[str, Column]


class HourStorer:
    """Stores the rows of closed hours; then removes their windows.

    Windows go after their rows are stored. So a worker that restores any snapshot stores the same rows again.

    Args:
        emission: stores the rows.
        consumer: returns the transport's consumer.
        folding: the thread that uses derivations.
        arrival_seconds: longest time from a commit to the arrival of rows that the commit allows to be sent.
        hours_of_a_day: hours in one part of an insert, which is a day; `hour // hours_of_a_day` numbers the days.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        emission: Emission,
        consumer: Callable[[], RollupConsumer],
        folding: Executor,
        *,
        arrival_seconds: float,
        hours_of_a_day: int = _HOURS_OF_A_DAY,
        clock: Callable[[], float] = lease_clock,
    ) -> None:
        self._emission = emission
        self._consumer = consumer
        self._folding = folding
        self._arrival_seconds = arrival_seconds
        self._hours_of_a_day = hours_of_a_day
        self._clock = clock
        self._joining = asyncio.Lock()

    # Hours that an earlier insert may have stored.

    async def settle(self, partition: AssignedPartition) -> None:
        """Store, the earliest first, the closed hours of a partition that an earlier insert may have stored.

        Raises:
            LostPartitionError: another worker owns the partition.
            ChimeraError, clickhouse_driver.errors.Error: the worker has to stop.
        """
        held = partition.held(self._consumer())
        if partition.storing.locked() or held is None or not _unsettled(partition, held):
            return
        async with partition.storing:
            if held.joint_insert and not await self._is_closed(partition, held, held.joint_insert):
                return
            async with partition.lock:
                hours = list(filter(partition.derivation.may_be_stored, partition.derivation.closed_hours()))
            for number in hours:
                await self._store(await self._hour_of(partition, held, number), again=True)

    async def _is_closed(self, partition: AssignedPartition, held: PartitionBatches, joint_insert: JointInsert) -> bool:
        """Make the server refuse the rows that a joint insert has of a partition; then commit without its name.

        Rows that are still missing then go under the tokens of their hours.

        Returns:
            True if no row of the joint insert can arrive any more, and the broker has taken the commit without its
            name. False if an hour that may be in it isn't closed here yet, or if the server refused the token less than
            `arrival_seconds` ago. After that time the server need not remember the token.
        """
        async with partition.lock:
            derivation = partition.derivation
            derivation.know_before(joint_insert.hour + 1)
            hours = [hour for hour in derivation.closed_hours() if hour <= joint_insert.hour]
            closed = derivation.has_closed(joint_insert.hour)
        for number in hours:
            if (day := number // self._hours_of_a_day) in partition.refused_days:
                continue
            hour = await self._hour_of(partition, held, number)
            if await self._emission.close_joint_insert(held, joint_insert, hour.rows):
                await self._remove(hour)
            else:
                partition.refused_days.add(day)
                partition.refused_at = self._clock()
        if partition.refused_days and self._clock() - partition.refused_at <= self._arrival_seconds:
            return False
        if not closed:
            return False
        partition.refused_days.clear()
        return await self._consumer().name_joint_insert({held: None})

    # Hours that nobody can have stored.

    async def store_jointly(self, partitions: Iterable[AssignedPartition]) -> None:
        """Store the closed hours of all partitions that nobody can have stored, in as few inserts as possible.

        Raises: as `settle`; after LostPartitionError, `settle` stores what is left.
        """
        if self._joining.locked():
            return
        async with self._joining:
            closed = deque((each, number) for each in partitions for number in each.derivation.closed_hours())
            while closed:
                async with AsyncExitStack() as storing:
                    hours = await self._block_of(closed, storing)
                    if hours and not await self._store_all(hours):
                        return

    async def _block_of(self, closed: deque[tuple[AssignedPartition, int]], storing: AsyncExitStack) -> list[_Hour]:
        """Take the next hours that fit into one block; an hour that is too large comes alone.

        Args:
            closed: closed hours by partition, in ascending order; some may be stored by now.
            storing: gets the locks of the partitions whose hours are taken.
        """
        block, rows, locked = list[_Hour](), 0, set[AssignedPartition]()
        while closed:
            partition, number = closed[0]
            if partition not in locked and not partition.storing.locked():
                await storing.enter_async_context(partition.storing)
                locked.add(partition)
            hour = await self._new_hour_of(partition, number) if partition in locked else None
            if hour is not None:
                rows += len(hour.rows["hour"])
                if block and rows > self._emission.max_rows:
                    return block
                block.append(hour)
            closed.popleft()
        return block

    async def _new_hour_of(self, partition: AssignedPartition, number: int) -> _Hour | None:
        """Return a closed hour; None if an insert of this partition may be under way, so that `settle` comes first."""
        held = partition.held(self._consumer())
        async with partition.lock:
            if held is None or number not in partition.derivation.closed_hours() or _unsettled(partition, held):
                return None
            rows = await in_thread(self._folding, partition.derivation.rows_of, number)
        return _Hour(partition, held, number, rows)

    async def _store_all(self, hours: list[_Hour]) -> bool:
        """Store hours as one insert; False if it isn't known to be stored, or a partition is lost."""
        joined = len(hours) > 1 and await self._emission.may_join(hours[0].held)
        name = secrets.token_hex(8)
        latest = {hour.held: JointInsert(name, hour.number) for hour in hours}  # the hours of a partition ascend
        if not joined:
            for hour in hours:
                await self._store(hour, again=False)
            return True
        if not await self._consumer().name_joint_insert(dict(latest)):
            return False
        if not await self._emission.store_jointly(latest, [hour.rows for hour in hours]):
            return False
        # The server answers also if it has dropped the rows, because a later owner of a partition has used the token. A
        # commit that the broker takes now says that there was none. Without it, each hour has to be looked for.
        for hour in hours:
            await self._know_before(hour.partition, hour.number + 1)
        if not await self._consumer().name_joint_insert(dict.fromkeys(latest)):
            return False
        for hour in hours:
            await self._remove(hour)
        return True

    # One hour.

    async def _hour_of(self, partition: AssignedPartition, held: PartitionBatches, number: int) -> _Hour:
        async with partition.lock:
            rows = await in_thread(self._folding, partition.derivation.rows_of, number)
        return _Hour(partition, held, number, rows)

    async def _store(self, hour: _Hour, *, again: bool) -> None:
        token = f"{hour.partition.topic_id}/{hour.partition.tp.partition}/hour/{hour.number}"
        await self._emission.store(hour.held, token, hour.rows, again=again)
        await self._remove(hour)

    async def _know_before(self, partition: AssignedPartition, hour: int) -> None:
        async with partition.lock:
            partition.derivation.know_before(hour)

    async def _remove(self, hour: _Hour) -> None:
        async with hour.partition.lock:
            hour.partition.derivation.stored(hour.number)


def _unsettled(partition: AssignedPartition, held: PartitionBatches) -> bool:
    """Tell whether another insert may have stored a closed hour, or may be under way."""
    done = partition.derivation
    return held.joint_insert is not None or any(map(done.may_be_stored, done.closed_hours()))
