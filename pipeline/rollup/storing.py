"""Storage of the closed hours of assigned partitions, whose windows are removed after that.

Hours that nobody can have stored go into one insert, with those of all partitions. Each other hour goes by itself, and
is looked for first.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from typing import NamedTuple

from pipeline.columns import Column
from pipeline.rollup.assigned import AssignedPartition, RollupConsumer, in_thread
from pipeline.rollup.emission import Emission, HeldTogether
from pipeline.transport.partition import PartitionBatches


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
    """

    def __init__(self, emission: Emission, consumer: Callable[[], RollupConsumer], folding: Executor) -> None:
        self._emission = emission
        self._consumer = consumer
        self._folding = folding
        self._joining = False

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
            async with partition.lock:
                derivation = partition.derivation
                reached = derivation.offset >= partition.delivered
                hours = derivation.closed_hours()
            for hour in hours:
                if held.joint_insert or derivation.may_be_stored(hour):
                    await self._store(await self._hour_of(partition, held, hour), again=True)
            if reached and held.joint_insert:
                # All its hours were closed by then. They are stored, and its token is known for each of their days, or
                # nothing of it was missing.
                self._consumer().forget_joint_insert(partition.tp)

    async def store_jointly(self, partitions: Iterable[AssignedPartition]) -> None:
        """Store the closed hours of all partitions that nobody can have stored, in as few inserts as possible.

        Raises: as `settle`; after LostPartitionError, `settle` stores what is left.
        """
        if self._joining:
            return
        self._joining = True
        try:
            async with AsyncExitStack() as stack:
                free = [partition for partition in partitions if not partition.storing.locked()]
                for partition in free:
                    await stack.enter_async_context(partition.storing)
                while hours := await self._block_of(free):
                    if not await self._store_all(hours):
                        return
        finally:
            self._joining = False

    async def _block_of(self, partitions: Iterable[AssignedPartition]) -> list[_Hour]:
        """Return the next hours that fit into one block; an hour that is too large comes alone."""
        block, rows = list[_Hour](), 0
        for partition in partitions:
            held = partition.held(self._consumer())
            if held is None or _unsettled(partition, held):
                continue
            for number in partition.derivation.closed_hours():
                hour = await self._hour_of(partition, held, number)
                rows += len(hour.rows["hour"])
                if block and rows > self._emission.max_rows:
                    return block
                block.append(hour)
        return block

    async def _hour_of(self, partition: AssignedPartition, held: PartitionBatches, number: int) -> _Hour:
        async with partition.lock:
            rows = await in_thread(self._folding, partition.derivation.rows_of, number)
        return _Hour(partition, held, number, rows)

    async def _store_all(self, hours: list[_Hour]) -> bool:
        """Store hours as one insert; False if it was begun and isn't known to be stored, so that `settle` has to."""
        if len(hours) == 1 or not await self._emission.may_join(hours[0].held):
            for hour in hours:
                await self._store(hour, again=False)
            return True
        name = secrets.token_hex(8)
        held = {hour.partition.tp: hour.held for hour in hours}
        if not await self._consumer().begin_joint_insert(held.keys(), name):
            return False
        together = HeldTogether(tuple(held.values()))
        if not await self._emission.store_jointly(together, _token(name), [hour.rows for hour in hours]):
            return False
        for hour in hours:
            await self._remove(hour)
        for tp in held:
            self._consumer().forget_joint_insert(tp)
        return True

    async def _store(self, hour: _Hour, *, again: bool) -> None:
        partition, name = hour.partition, hour.held.joint_insert
        token = f"{partition.topic_id}/{partition.tp.partition}/hour/{hour.number}"
        await self._emission.store(hour.held, token, hour.rows, again=again, under_way=_token(name) if name else None)
        await self._remove(hour)

    async def _remove(self, hour: _Hour) -> None:
        async with hour.partition.lock:
            hour.partition.derivation.stored(hour.number)


def _unsettled(partition: AssignedPartition, held: PartitionBatches) -> bool:
    """Tell whether another insert may have stored a closed hour, or may be under way."""
    done = partition.derivation
    return held.joint_insert is not None or any(map(done.may_be_stored, done.closed_hours()))


def _token(joint_insert: str) -> str:
    return f"joint/{joint_insert}"
