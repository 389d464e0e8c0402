"""The stream job: from the micro-batches of ui_events to the rows of session_stats, partition by partition.

A partition's windows are a function of its log and of the closings that were recorded, so they can be made again by
anybody. What keeps it so:
- micro-batches are added in the order of the log, and a closing by the clock at the offset that was recorded with it;
- rows are stored before their windows are removed, so that who goes on from any snapshot stores the same rows again;
- a snapshot holds all of the windows, and the offset of the first record that isn't in them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from pipeline import metrics
from pipeline.clickhouse.client import describe, kind_of
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Rows
from pipeline.config import Settings
from pipeline.errors import UnavailableError
from pipeline.retry import Held, LostPartitionError, Renew, Retry
from pipeline.rollup.derivation import Derivation
from pipeline.rollup.emission import Emission
from pipeline.rollup.events import foreign_keys
from pipeline.rollup.idleness import hour_by_clock
from pipeline.rollup.recovery import Recovery, recover
from pipeline.rollup.store import SnapshotStore
from pipeline.transport.batches import MicroBatch, PartitionBatches, Takeover

_TICK_SECONDS = 1.0
# Each hour that was stored since the last snapshot is looked up by whoever takes the partition over.
_HOURS_BETWEEN_SNAPSHOTS = 100

T = TypeVar("T")


class Consumer(Protocol):
    """What the job needs of the transport's consumer."""

    def held(self, tp: TopicPartition) -> PartitionBatches | None: ...  # noqa: D102 (as all below: see pipeline.transport.assignment)
    async def close_by_clock(self, tp: TopicPartition, offset: int, hour: int) -> bool: ...  # noqa: D102
    def forget_closings(self, tp: TopicPartition, before: int) -> None: ...  # noqa: D102


@dataclass(eq=False)
class _Partition:
    """What the job has of a partition, until it goes; what the derivation is asked for, it is asked with the lock."""

    tp: TopicPartition
    topic_id: str
    derivation: Derivation
    recovery: Recovery
    snapshots: tuple[int | None, int | None]
    """Offsets of the last two snapshots, the older one first."""
    batches: asyncio.Queue[MicroBatch] = field(default_factory=asyncio.Queue)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    saving: asyncio.Lock = field(default_factory=asyncio.Lock)
    storing: asyncio.Lock = field(default_factory=asyncio.Lock)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    quiet_since: float = field(default_factory=time.monotonic)
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def changed(self) -> bool:
        """Whether the last snapshot isn't all there is."""
        return self.derivation.offset != self.snapshots[1] or self.derivation.stored_hours > 0


class RollupJob:
    """Keeps the windows of the partitions that this worker has.

    Args:
        topic: the events come from.
        settings: of the worker.
        store: of the snapshots.
        sink: where the table is.
        consumer: the transport's, once there is one.
        renew: as in `pipeline.retry`.
        decode: the rows of a micro-batch.
        halt: told of what makes going on impossible.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        topic: str,
        settings: Settings,
        *,
        store: SnapshotStore,
        sink: Sink,
        consumer: Callable[[], Consumer],
        renew: Renew,
        decode: Callable[[MicroBatch], Awaitable[Rows]],
        halt: Callable[[BaseException], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.topics = frozenset({topic})
        self._settings = settings.rollup
        self._store = store
        self._consumer = consumer
        self._decode = decode
        self._halt = halt
        self._clock = clock
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._folding = ThreadPoolExecutor(1, thread_name_prefix="rollup")
        self._saving = ThreadPoolExecutor(1, thread_name_prefix="rollup-snapshots")
        self._retry = Retry(TABLE, renew, settings.worker, kind_of=kind_of, describe=describe)
        self._emission = Emission(sink, self._retry, ThreadPoolExecutor(1, thread_name_prefix="rollup-emission"))
        self._said_foreign = False
        self._log = structlog.get_logger("chimera.rollup")

    @property
    def trouble(self) -> str | None:
        """Why rows don't flow; None while all is well."""
        return f"{TABLE}: what has failed is tried again" if self._retry.failing else None

    # The agent's part.

    def take(self, batch: MicroBatch) -> None:
        """Add a micro-batch to the windows of its partition, after those taken before it; then acknowledge it."""
        if partition := self._partitions.get(TopicPartition(batch.topic, batch.partition)):
            partition.batches.put_nowait(batch)

    async def _follow(self, partition: _Partition) -> None:
        """Add what is taken, one micro-batch after the other, until the partition goes."""
        while True:
            batch = await partition.batches.get()
            rows = await self._decode(batch)
            async with partition.lock:
                if not batch.live:
                    return  # nor will be any other
                await self._add(partition, batch, rows)
            batch.ack()
            self._soon(partition, self._store_closed)
            done = partition.derivation
            if done.rows >= self._settings.snapshot_rows or done.stored_hours >= _HOURS_BETWEEN_SNAPSHOTS:
                self._soon(partition, self._save)

    async def _add(self, partition: _Partition, batch: MicroBatch, rows: Rows) -> None:
        partition.recovery.note(rows.columns["ts"])
        foreign = await _in_thread(self._folding, _add, partition.derivation, batch, rows)
        partition.recovery.advance(partition.derivation.offset)
        partition.quiet_since = time.monotonic()
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

    # Storing what is closed.

    async def _store_closed(self, partition: _Partition) -> None:
        """Store the rows of closed hours, the earliest hour first, and remove their windows."""
        if partition.storing.locked():
            return
        async with partition.storing:
            while (held := self._held(partition)) and (hour := partition.derivation.closed_hour()) is not None:
                async with partition.lock:
                    rows = await _in_thread(self._folding, partition.derivation.rows_of, hour)
                    again = partition.derivation.may_be_stored(hour)
                token = f"{partition.topic_id}/{partition.tp.partition}/hour/{hour}"
                await self._emission.store(held, token, rows, again=again)
                async with partition.lock:
                    partition.derivation.stored(hour)

    def _held(self, partition: _Partition) -> Held | None:
        """The partition, as the transport has it; None when it isn't ours any more, or not quite yet."""
        if self._partitions.get(partition.tp) is not partition:
            return None
        held = self._consumer().held(partition.tp)
        return held if held is not None and held.topic_id == partition.topic_id else None

    # The clock's part.

    async def run(self) -> None:
        """Close windows of idle partitions, and write snapshots, as time goes by."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            partitions = [partition for partition in self._partitions.values() if self._held(partition)]
            for partition in partitions:
                self._tick(partition)
            windows = [partition.derivation.windows for partition in partitions]
            metrics.ROLLUP_OPEN_WINDOWS.set(sum(each.open_windows for each in windows))
            metrics.ROLLUP_CLOSED_HOURS.set(sum(len(each.closed_hours()) for each in windows))
            metrics.ROLLUP_WAITING_EVENTS.set(sum(each.waiting_events for each in windows))
            metrics.ROLLUP_RECORDS_TO_REPLAY.set(sum(partition.recovery.remaining for partition in partitions))

    def _tick(self, partition: _Partition) -> None:
        partition.recovery.say()
        self._soon(partition, self._store_closed)
        if self._hour_by_clock(partition) is not None and not partition.lock.locked():
            self._soon(partition, self._close_by_clock)
        if partition.changed and time.monotonic() - partition.saved_at >= self._settings.snapshot_seconds:
            self._soon(partition, self._save)

    def _hour_by_clock(self, partition: _Partition) -> int | None:
        quiet_seconds = time.monotonic() - partition.quiet_since
        return hour_by_clock(partition.derivation.windows, self._clock(), quiet_seconds, self._settings)

    async def _close_by_clock(self, partition: _Partition) -> None:
        """Record that the windows before an hour are closed, and only then close them."""
        async with partition.lock:
            hour = self._hour_by_clock(partition)
            if hour is None or self._held(partition) is None:
                return
            try:
                recorded = await self._consumer().close_by_clock(partition.tp, partition.derivation.offset, hour)
            except (KafkaError, UnavailableError) as error:
                self._log.warning("closing by the clock isn't recorded, will try again", error=repr(error))
                return
            if recorded:
                await _in_thread(self._folding, partition.derivation.close, hour)
                partition.saved_at = float("-inf")  # then the record of the closing can be forgotten
                where = {"topic": partition.tp.topic, "partition": partition.tp.partition}
                self._log.info("windows of an idle partition closed by the clock", **where, before_hour=hour)

    # Snapshots, taking partitions over, and letting them go.

    async def _save(self, partition: _Partition) -> None:
        """Write a snapshot, unless one is being written."""
        if not partition.saving.locked():
            await self._save_now(partition)

    async def _save_now(self, partition: _Partition) -> None:
        """Write a snapshot of what there is when the one before it is written, unless that has it all."""
        async with partition.saving:
            async with partition.lock:
                if self._held(partition) is None or not partition.changed:
                    return
                done = partition.derivation
                rows, hours, partition.saved_at = done.rows, done.stored_hours, time.monotonic()
                snapshot = await _in_thread(self._folding, done.snapshot, partition.topic_id, partition.tp.partition)
            try:
                with metrics.ROLLUP_SNAPSHOT_SECONDS.time():
                    await _in_thread(self._saving, self._store.write, snapshot)
            except UnavailableError as error:
                self._log.warning("snapshot not written, the next one will hold more", error=str(error))
                return
            done.rows -= rows
            done.stored_hours -= hours
            partition.snapshots = (partition.snapshots[1], snapshot.offset)
            if (older := partition.snapshots[0]) is not None and self._held(partition):
                self._consumer().forget_closings(partition.tp, older)

    async def take_over(self, taken: Mapping[TopicPartition, Takeover]) -> dict[TopicPartition, int]:
        """Go on from the newest snapshots with these partitions, and with no others.

        Returns:
            The offset that each partition's log is needed from.

        Raises:
            UnavailableError: the broker doesn't answer.
            ChimeraError: it refuses.
        """
        self._drop(set(self._partitions))
        grace_ms = round(self._settings.grace_seconds * 1000)
        recovered = await _in_thread(self._saving, partial(recover, self._store, taken, grace_ms))
        for tp, (derivation, recovery, snapshots) in recovered.items():
            partition = _Partition(tp, taken[tp].topic_id, derivation, recovery, snapshots)
            self._partitions[tp] = partition
            self._soon(partition, self._follow)
        return {tp: partition.derivation.offset for tp, partition in self._partitions.items()}

    async def release(self, partitions: set[TopicPartition]) -> None:
        """Write snapshots of partitions that go, so that the next owner has little to replay."""
        going = [self._partitions[tp] for tp in partitions & self._partitions.keys()]
        try:
            await asyncio.gather(*map(self._save_now, going))
        finally:
            self._drop(partitions)

    def _drop(self, partitions: set[TopicPartition]) -> None:
        for tp in partitions & self._partitions.keys():
            for task in self._partitions.pop(tp).tasks:
                task.cancel()

    # In the background.

    def _soon(self, partition: _Partition, work: Callable[[_Partition], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.create_task(self._see_through(work(partition)))
        partition.tasks.add(task)
        task.add_done_callback(partition.tasks.discard)

    async def _see_through(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except LostPartitionError:
            pass  # its new owner does the same
        except Exception as error:  # noqa: BLE001 (whatever it is, going on could lose rows)
            self._halt(error)


async def _in_thread(pool: Executor, work: Callable[..., T], *args: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work, *args)


def _add(derivation: Derivation, batch: MicroBatch, rows: Rows) -> list[int]:
    """Add a micro-batch; gives the offsets of records whose key isn't their session, which are said before a replay."""
    derivation.add(batch, rows)
    return [] if batch.replayed else foreign_keys(batch, rows)
