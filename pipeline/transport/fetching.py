"""Fetch records into micro-batches: choose partitions with room, cut, and commit each range before its delivery."""

import asyncio
from collections.abc import Iterable
from typing import Any

from pipeline import metrics
from pipeline.errors import HaltError, damaged_log, way_past
from pipeline.metrics import Stage
from pipeline.transport.asking import until_answered
from pipeline.transport.broker import Fetched, TopicPartition
from pipeline.transport.commits import Commits
from pipeline.transport.context import Context
from pipeline.transport.filling import Filling
from pipeline.transport.gaps import Gaps
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.partition import PartitionBatches
from pipeline.transport.topics import Topics

_AT_BROKER = 0.1  # part of the linger that records may have waited for their fetch
_TOGETHER = 0.25  # part of the linger that a micro-batch may lack, if another one is cut
RECHECK_SECONDS = 0.05
"""Longest time until an acknowledgement is noticed while records are waited for."""


class Fetching:
    """Fetches from the assigned partitions.

    Args:
        context: broker, assignment and options.
        commits: commits the ranges that are cut.
        topics: tells whether a topic was created anew.
    """

    def __init__(self, context: Context, commits: Commits, topics: Topics) -> None:
        self._context = context
        self._assignment = context.assignment
        self._options = context.options
        self._flow = context.flow
        self._clock = context.clock
        self._commits = commits
        self._topics = topics
        self._gaps = Gaps(context, topics)
        self._fetched_at = float("-inf")
        self._filling = Filling(context)

    async def next(self, active: set[TopicPartition], seconds: float) -> dict[TopicPartition, list[Any]] | None:
        """Wait for records, at most this long.

        Args:
            active: partitions to fetch from.
            seconds: longest wait for records.

        Returns:
            Micro-batches of the topics with a batch policy, and records of all others; None if nothing may be
            delivered now.
        """
        fetched = await self._fetch(active, seconds)
        if fetched is None or not self._flow.flow_active:
            return None  # after a rebalance, fetching starts at the committed offsets
        now = self._clock()
        partitions = self._assignment.partitions
        others = {tp: list(some.records) for tp, some in fetched.items() if tp.topic not in self._options.policies}
        # The owners of these records are settled now: adding some may take long, and a partition's place may be taken
        # by another object meanwhile.
        for partition, some in [(partitions[tp], fetched[tp]) for tp in fetched.keys() & partitions.keys()]:
            waited = self._options.policies[partition.topic].linger_seconds * _AT_BROKER
            await self._gaps.add(partition, some, max(self._fetched_at, now - waited))
            partition.damage = some.damage
        if fetched:
            self._fetched_at = now
        self._halt_if_damaged()
        batches = self._cut(active, now, more=bool(fetched))
        if not await self._may_be_delivered([batch for cut in batches.values() for batch in cut]):
            return None
        return {tp: records for tp, records in others.items() if records} | batches

    def _cut(self, active: set[TopicPartition], now: float, *, more: bool) -> dict[TopicPartition, list[MicroBatch]]:
        """Cut what is complete, and if anything is, also what nearly is: one request commits all these ranges."""
        partitions = self._assignment.partitions
        batches = {tp: list(partitions[tp].cut(now)) for tp in active & partitions.keys()}
        self._filling.cut_early(batches, now, more=more)
        if any(batches.values()):
            for tp in batches:
                nearly = self._options.policies[tp.topic].linger_seconds * _TOGETHER
                batches[tp] += partitions[tp].cut(now + nearly)
        return batches

    async def _fetch(self, active: set[TopicPartition], seconds: float) -> dict[TopicPartition, Fetched] | None:
        """Fetch from the partitions that have room; without one, wait for an acknowledgement instead."""
        wanted = self._filling.to_fetch(active)
        busy = any(batches.in_flight for batches in self._assignment.partitions.values())
        patience = min(RECHECK_SECONDS if busy else seconds, self._until_due(active))
        if not wanted:
            await self._assignment.wait_for_progress(patience)
        try:
            with metrics.timed(Stage.FETCH_WAIT):
                return dict(await self._context.broker.fetch(wanted, patience if wanted else 0.0))
        except HaltError as error:
            self._options.stop(error)
            await asyncio.sleep(self._options.retry_seconds)
            return None

    async def _may_be_delivered(self, batches: list[MicroBatch]) -> bool:
        """Commit the ranges that were cut, however long the broker takes; False if this worker lost them meanwhile.

        The topics' ids are checked again: the records may be of a topic that was created under the same name.
        """
        if not batches:
            return True

        async def ask() -> None:
            await asyncio.gather(
                self._commits.commit(), self._topics.let_go_of_recreated({batch.topic for batch in batches})
            )

        def wanted() -> bool:
            return self._flow.flow_active and not self._flow.should_stop and all(batch.live for batch in batches)

        await until_answered(ask, wanted, self._context)
        return wanted()

    def _halt_if_damaged(self) -> None:
        """Halt at a damaged log once all before the damage is done, or if a range that is to be cut again has it."""
        for tp, partition in self._assignment.partitions.items():
            done = partition.incomplete or partition.state.offset >= partition.next_offset
            if (damage := partition.damage) and done:
                way_out = way_past(damage.offsets, behind_all=not partition.incomplete)
                self._options.stop(damaged_log(*tp, damage.fault, way_out))

    def _until_due(self, active: set[TopicPartition]) -> float:
        """Seconds until the first micro-batch that may be cut has waited long enough."""
        due = _due_times(self._assignment.partitions[tp] for tp in active & self._assignment.partitions.keys())
        return max(0.0, min(due, default=float("inf")) - self._clock())


def _due_times(partitions: Iterable[PartitionBatches]) -> Iterable[float]:
    return (due_at for batches in partitions if not batches.full and (due_at := batches.due_at) is not None)
