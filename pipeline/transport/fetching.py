"""Fetch records into micro-batches: choose partitions with room, cut, and commit each range before its delivery."""

import asyncio
from collections import Counter
from itertools import islice
from typing import Any

from pipeline import metrics
from pipeline.errors import HaltError, damaged_log, way_past
from pipeline.metrics import Stage
from pipeline.transport.asking import until_answered
from pipeline.transport.broker import Fetched, TopicPartition
from pipeline.transport.commits import Commits
from pipeline.transport.context import Context
from pipeline.transport.gaps import Gaps
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.partition import PartitionBatches
from pipeline.transport.topics import Topics

_AT_BROKER = 0.25  # part of the linger that records may have waited for their fetch,
_AT_BROKER_SECONDS = 0.1  # but no longer than a fetch that waits for more records
_TOGETHER = 0.25  # part of the linger that a micro-batch may lack, if another one is cut
_HELD_BACK = 0.5  # part of the linger that a micro-batch waits longer while it would have no place,
_HELD_BACK_SECONDS = 0.1  # but no longer than this: slow commits would make all partitions of many late
_PLACE_SECONDS = 0.01  # time after which it is looked again whether a place is free
_ENOUGH = 0.1  # part of the policy's rows that is worth an insert of a worker that has nothing better to do
_QUIET = 0.25  # part of the linger without records after which a burst is over
_QUIET_SECONDS = 0.15  # but longer than a broker waits for more records before it answers
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
        self._asked: set[TopicPartition] = set()  # partitions of the last fetch
        self._fetched_at = float("-inf")
        # Partitions cut early, with the last time at which records came, or weren't asked for.
        self._bursts: dict[PartitionBatches, float] = {}

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
            waited = min(_AT_BROKER_SECONDS, self._linger(partition) * _AT_BROKER)
            await self._gaps.add(partition, some, max(self._fetched_at, now - waited))
            partition.damage = some.damage
        if fetched:
            self._fetched_at = now
        silent = {partitions[tp] for tp in (self._asked - fetched.keys()) & partitions.keys()}
        active_ones = {partitions[tp] for tp in active & partitions.keys()}
        self._bursts = {each: at if each in silent else now for each, at in self._bursts.items() if each in active_ones}
        self._halt_if_damaged()
        batches = self._cut(active, now)
        if not await self._may_be_delivered([batch for cut in batches.values() for batch in cut]):
            return None
        return {tp: records for tp, records in others.items() if records} | batches

    def _cut(self, active: set[TopicPartition], now: float) -> dict[TopicPartition, list[MicroBatch]]:
        """Cut what is complete, and if anything is, also what nearly is: one request commits all these ranges.

        What is complete for its age alone is held back while its topic takes all places. So the partitions of a topic
        take turns instead of being cut together and waiting for each other's inserts, and while inserts are slow,
        micro-batches grow.
        """
        every, in_flight = self._assignment.partitions, self._in_flight()
        batches = dict[TopicPartition, list[MicroBatch]]()

        def cut(tp: TopicPartition, by: float) -> None:
            some = list(every[tp].cut(by))
            in_flight[tp.topic] += len(some)
            batches.setdefault(tp, []).extend(some)

        by_age = sorted(active & every.keys(), key=lambda tp: every[tp].due_at or now)
        for tp in by_age:
            cut(tp, now - self._held_back(tp, in_flight))
        self._cut_early(batches, in_flight, now)
        if any(batches.values()):
            for tp in by_age:
                if not self._held_back(tp, in_flight):
                    cut(tp, now + self._linger(tp) * _TOGETHER)
        return batches

    def _cut_early(self, batches: dict[TopicPartition, list[MicroBatch]], in_flight: Counter[str], now: float) -> None:
        """Cut incomplete micro-batches early, beginning with the partition that has the most waiting bytes.

        A partition with nothing in flight is cut when its waiting records are worth an insert. If memory is short, each
        partition that holds more than its share of it is cut too, because finished micro-batches free memory. Both stop
        when enough micro-batches of the topic are in flight; the other records wait, so their micro-batch grows. After
        an early cut, the rest of the burst is cut when no more records come.
        """
        every = self._assignment.partitions
        share = self._options.max_bytes / len(every) if self._memory_is_short() else float("inf")
        some = [(tp, every[tp]) for tp in batches if every[tp].waiting or every[tp] in self._bursts]
        for tp, partition in sorted(some, key=lambda each: each[1].waiting.held_bytes, reverse=True):
            policy, idle, rows = self._options.policies[tp.topic], not partition.in_flight, len(partition.waiting)
            enough = (idle and rows >= policy.max_rows * _ENOUGH) or partition.waiting.held_bytes >= share
            quiet = now - self._bursts.get(partition, now) >= max(_QUIET_SECONDS, policy.linger_seconds * _QUIET)
            over = idle and quiet
            if (over and rows >= policy.min_rows) or (enough and in_flight[tp.topic] < self._options.enough_in_flight):
                cut = list(islice(partition.cut(now, hurry=True), 1))
                batches[tp] += cut
                in_flight[tp.topic] += len(cut)
                if cut:
                    self._bursts[partition] = now
            if over:
                del self._bursts[partition]

    async def _fetch(self, active: set[TopicPartition], seconds: float) -> dict[TopicPartition, Fetched] | None:
        """Fetch from the partitions that have room; without one, wait for an acknowledgement instead."""
        wanted = self._asked = self._with_room(active)
        busy = bool(self._bursts) or any(batches.in_flight for batches in self._assignment.partitions.values())
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

    def _with_room(self, active: set[TopicPartition]) -> set[TopicPartition]:
        """Return the partitions to fetch from: those without a batch policy, and those with room."""
        partitions = self._assignment.partitions
        others = {tp for tp in active if tp.topic not in self._options.policies}
        held = {tp for tp in active & partitions.keys() if partitions[tp].damage is None}
        if not self._memory_is_short():
            return others | {tp for tp in held if partitions[tp].has_room}
        # A range that is cut again can't be cut short. One such partition at a time fetches on.
        incomplete = sorted(tp for tp in held if partitions[tp].incomplete and not partitions[tp].full)
        return others | set(incomplete[:1])

    def _halt_if_damaged(self) -> None:
        """Halt at a damaged log once all before the damage is done, or if a range that is to be cut again has it."""
        for tp, partition in self._assignment.partitions.items():
            done = partition.incomplete or partition.state.offset >= partition.next_offset
            if (damage := partition.damage) and done:
                way_out = way_past(damage.offsets, behind_all=not partition.incomplete)
                self._options.stop(damaged_log(*tp, damage.fault, way_out))

    def _memory_is_short(self) -> bool:
        return self._assignment.held_bytes >= self._options.max_bytes

    def _until_due(self, active: set[TopicPartition]) -> float:
        """Seconds until the first micro-batch that may be cut has waited long enough, or a place may be free for it."""
        every, in_flight, now = self._assignment.partitions, self._in_flight(), self._clock()
        seconds = float("inf")
        for tp in active & every.keys():
            if not every[tp].full and (due_at := every[tp].due_at) is not None:
                held, left = self._held_back(tp, in_flight), due_at - now
                seconds = min(seconds, left + held, max(left, _PLACE_SECONDS if held else 0.0))
        return max(0.0, seconds)

    def _in_flight(self) -> Counter[str]:
        """Count the micro-batches in flight of each topic."""
        counts = Counter[str]()
        for each in self._assignment.partitions.values():
            counts[each.topic] += len(each.in_flight)
        return counts

    def _held_back(self, tp: TopicPartition, in_flight: Counter[str]) -> float:
        """Seconds for which a micro-batch waits longer than its linger, because its topic takes all places now.

        One that gets no more records waits for nothing. A topic counts its own micro-batches alone, so that one that is
        stuck doesn't hold up another.
        """
        taken = in_flight[tp.topic] >= self._options.places
        longest = min(_HELD_BACK_SECONDS, self._linger(tp) * _HELD_BACK)
        return longest if taken and not self._assignment.partitions[tp].whole else 0.0

    def _linger(self, of: TopicPartition | PartitionBatches) -> float:
        return self._options.policies[of.topic].linger_seconds
