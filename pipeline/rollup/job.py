"""The rollup's job in a worker: from the micro-batches of ui_events to the rows of session_stats, by partition.

A partition's windows are a function of its log and of the closings that are committed, so any worker can make them
again. Three rules ensure that:
- the job adds micro-batches in the order of the log, and closes by the clock at the offset that is committed with it;
- it stores rows before it removes their windows, so a worker that restores any snapshot stores the same rows again;
- a snapshot contains all windows, and the offset of the first record that isn't in them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import structlog

from pipeline import metrics
from pipeline.clickhouse.block_budget import BlockBudget
from pipeline.clickhouse.deduplication import arrival_seconds
from pipeline.clickhouse.retrying import retry_of
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Rows
from pipeline.config import Settings
from pipeline.retry import LostPartitionError, Renew
from pipeline.rollup.assigned import AssignedPartition, RollupConsumer, in_thread
from pipeline.rollup.clock import BrokerClock, Clock
from pipeline.rollup.closing import HourCloser
from pipeline.rollup.derivation import Derivation
from pipeline.rollup.emission import Emission
from pipeline.rollup.events import foreign_keys
from pipeline.rollup.joint_insert import renew_together
from pipeline.rollup.recovery import recover
from pipeline.rollup.saving import SnapshotSaver
from pipeline.rollup.shares import Shares
from pipeline.rollup.store import SnapshotStore
from pipeline.rollup.storing import HourStorer
from pipeline.transport.broker import TopicPartition
from pipeline.transport.deriver import Takeover
from pipeline.transport.micro_batch import MicroBatch
from pipeline.troubles import Troubles

_TICK_SECONDS = 1.0
# The next owner of a partition looks up each hour that was stored since the last snapshot.
_HOURS_BETWEEN_SNAPSHOTS = 100
# Late events are in a snapshot soon, so that `verify` can explain them; at most one part in this many of the time goes
# into such snapshots.
_LATE_PAUSES = 50


class RollupJob:
    """Job that keeps the windows of the partitions assigned to this worker.

    Args:
        topic: topic of the events.
        settings: settings of the worker.
        store: store of the snapshots.
        sink: server and database of session_stats.
        consumer: returns the transport's consumer, once it exists.
        renew: commits the state of a partition again; see `pipeline.retry`.
        decode: returns the rows of a micro-batch.
        halt: called with a failure after which the worker has to stop.
        budget: makes inserts wait for their share of the deduplication window.
        clock: durations.
        troubles: told of failed steps.
    """

    def __init__(
        self,
        topic: str,
        settings: Settings,
        *,
        store: SnapshotStore,
        sink: Sink,
        consumer: Callable[[], RollupConsumer],
        renew: Renew,
        decode: Callable[[MicroBatch], Awaitable[Rows]],
        halt: Callable[[BaseException], None],
        budget: BlockBudget | None = None,
        clock: Clock | None = None,
        troubles: Troubles | None = None,
    ) -> None:
        self.topics = frozenset({topic})
        self._settings = settings.rollup
        self._store = store
        self._consumer = consumer
        self._decode = decode
        self._halt = halt
        self._clock = clock or Clock()
        self._partitions: dict[TopicPartition, AssignedPartition] = {}
        self._folding = ThreadPoolExecutor(1, thread_name_prefix="rollup")
        self._saving = ThreadPoolExecutor(1, thread_name_prefix="rollup-snapshots")
        self._retry = retry_of(TABLE, renew_together(renew), settings.worker, settings.clickhouse, troubles)
        pool = ThreadPoolExecutor(1, thread_name_prefix="rollup-emission")
        emission = Emission(sink, self._retry, pool, budget=budget, repeat_seconds=settings.worker.lease_seconds)
        broker_clock = BrokerClock(store.broker_time_ms, self._saving, self._clock)
        self._storer = HourStorer(emission, consumer, self._folding, arrival_seconds=arrival_seconds(settings))
        self._joint_insert: asyncio.Task[None] | None = None
        self._hours = HourCloser(settings.rollup, consumer, self._folding, clock=self._clock, broker_clock=broker_clock)
        self._snapshots = SnapshotSaver(store, consumer, self._folding, self._saving, self._clock)
        self._shares = Shares(self._clock)
        self._said_foreign = False
        self._log = structlog.get_logger("chimera.rollup")

    # Micro-batches.

    def take(self, batch: MicroBatch) -> None:
        """Queue a micro-batch of an assigned partition; it is acknowledged when its windows contain it."""
        if partition := self._partitions.get(TopicPartition(batch.topic, batch.partition)):
            partition.batches.put_nowait(batch)

    async def _follow(self, partition: AssignedPartition) -> None:
        """Add the queued micro-batches, one after the other, until the partition is lost."""
        while await self._add_next(partition):
            done = partition.derivation
            if done.rows >= self._settings.snapshot_rows or done.stored_hours >= _HOURS_BETWEEN_SNAPSHOTS:
                self._start(partition, self._snapshots.save)

    async def _add_next(self, partition: AssignedPartition) -> bool:
        """Add the next micro-batch; False if its partition is lost, so that no later one is live either.

        Nothing refers to the micro-batch after that: while a partition waits for its next one, the rows of the last
        take no memory.
        """
        batch = await partition.batches.get()
        rows = await self._decode(batch)
        async with partition.lock:
            if not batch.live:
                return False
            await self._add(partition, batch, rows)
        batch.ack()
        return True

    async def _add(self, partition: AssignedPartition, batch: MicroBatch, rows: Rows) -> None:
        partition.recovery.note(rows.columns["ts"])
        foreign = await in_thread(self._folding, _add_to, partition.derivation, batch, rows)
        partition.recovery.advance(partition.derivation.offset)
        self._shares.note(partition.derivation.take_counts(), partition.derivation.windows.most_ahead_ms)
        partition.quiet_since = self._clock.monotonic()
        metrics.ROLLUP_FOREIGN_KEYS.inc(len(foreign))
        if foreign and not self._said_foreign:
            self._said_foreign = True
            self._log.warning(
                "the key of a record isn't its session_id: a session may be in several partitions, and have several "
                "rows in an hour; see `chimera rollup verify`",
                topic=batch.topic,
                partition=batch.partition,
                offset=foreign[0],
            )

    # The tick.

    async def run(self) -> None:
        """Every second, start the work that is due in each partition, and set the metrics."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._shares.say()
            consumer = self._consumer()
            partitions = [partition for partition in self._partitions.values() if partition.held(consumer)]
            for partition in partitions:
                self._tick(partition)
            if self._joint_insert is None or self._joint_insert.done():
                self._joint_insert = asyncio.create_task(self._or_halt(self._storer.store_jointly(partitions)))
            windows = [partition.derivation.windows for partition in partitions]
            metrics.ROLLUP_OPEN_WINDOWS.set(sum(each.open_windows for each in windows))
            metrics.ROLLUP_CLOSED_HOURS.set(sum(len(each.closed_hours()) for each in windows))
            metrics.ROLLUP_WAITING_EVENTS.set(sum(each.waiting_events for each in windows))
            metrics.ROLLUP_RECORDS_TO_REPLAY.set(sum(partition.recovery.remaining for partition in partitions))

    def _tick(self, partition: AssignedPartition) -> None:
        partition.recovery.say()
        if partition.passed(self._consumer()) is not None:
            self._start(partition, self._pass_empty)
        self._start(partition, self._storer.settle)
        if self._hours.may_close(partition):
            self._start(partition, self._hours.close_by_clock)
        unsaved_seconds = self._clock.monotonic() - partition.saved_at
        pause = self._settings.snapshot_seconds
        quiet = self._clock.monotonic() - partition.quiet_since >= _TICK_SECONDS
        if partition.derivation.late and quiet:
            pause = min(pause, max(_TICK_SECONDS, _LATE_PAUSES * partition.saving_seconds))
        if partition.changed and unsaved_seconds >= pause:
            self._start(partition, self._snapshots.save)

    async def _pass_empty(self, partition: AssignedPartition) -> None:
        await partition.pass_empty(self._consumer(), self._folding)

    # Assignment.

    async def take_over(self, taken: Mapping[TopicPartition, Takeover]) -> dict[TopicPartition, int]:
        """Drop all partitions, and restore the given ones from their newest snapshots.

        Returns:
            First offset that each partition needs from the log.

        Raises:
            UnavailableError: the broker doesn't answer.
            ChimeraError: the broker refuses.
        """
        self._drop(set(self._partitions))
        grace_ms = round(self._settings.grace_seconds * 1000)
        recovered = await in_thread(self._saving, partial(recover, self._store, taken, grace_ms, self._clock))
        for tp, parts in recovered.items():
            now = self._clock.monotonic()
            partition = AssignedPartition(tp, taken[tp].topic_id, *parts, quiet_since=now, saved_at=now)
            self._partitions[tp] = partition
            self._start(partition, self._follow)
        return {tp: partition.derivation.offset for tp, partition in self._partitions.items()}

    def missed(self, tp: TopicPartition, records: int) -> None:  # noqa: ARG002 (the counter has no labels)
        """Count records that retention deleted before they were replayed."""
        metrics.ROLLUP_RECORDS_MISSING.inc(records)

    async def release(self, partitions: set[TopicPartition]) -> None:
        """Write snapshots of partitions before they are revoked, so that their next owners have little to replay."""
        revoked = [self._partitions[tp] for tp in partitions & self._partitions.keys()]
        try:
            await asyncio.gather(*map(self._pass_empty, revoked))
            await asyncio.gather(*map(self._snapshots.save_now, revoked))
        finally:
            self._drop(partitions)

    def _drop(self, partitions: set[TopicPartition]) -> None:
        for tp in partitions & self._partitions.keys():
            self._partitions.pop(tp).drop()

    # Background tasks.

    def _start(
        self, partition: AssignedPartition, work: Callable[[AssignedPartition], Coroutine[Any, Any, None]]
    ) -> None:
        task = asyncio.create_task(self._or_halt(work(partition)))
        partition.tasks.add(task)
        task.add_done_callback(partition.tasks.discard)

    async def _or_halt(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except LostPartitionError:
            pass  # the next owner does the same work
        except Exception as error:  # noqa: BLE001 (after any failure, going on could lose rows)
            self._halt(error)


def _add_to(derivation: Derivation, batch: MicroBatch, rows: Rows) -> list[int]:
    """Add a micro-batch; return the offsets of records whose key isn't their session, unless it is replayed."""
    derivation.add(batch, rows)
    return [] if batch.replayed else foreign_keys(batch, rows)
