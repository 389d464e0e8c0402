"""The stream job: from the micro-batches of ui_events to the rows of session_stats, partition by partition.

A partition's windows are a function of its log and of the closings that were recorded, so they can be made again by
anybody. What keeps it so:
- micro-batches are added in the order of the log, and a closing by the clock at the offset that was recorded with it;
- rows are stored before their windows are removed, so that who goes on from any snapshot stores the same rows again;
- a snapshot holds all of the windows, and the offset of the first record that isn't in them.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from pipeline import metrics
from pipeline.attempts import Attempts, Held, LostPartitionError, Renew
from pipeline.batches import MicroBatch, PartitionBatches, Takeover
from pipeline.columns import Rows
from pipeline.config import Settings
from pipeline.errors import UnavailableError
from pipeline.ranges import Closing
from pipeline.rollup import TABLE
from pipeline.rollup.emission import Emission
from pipeline.rollup.events import events_of, foreign_keys, part_of
from pipeline.rollup.fold import HOUR_MS
from pipeline.rollup.partition import Events, PartitionWindows
from pipeline.rollup.recovery import Recovery
from pipeline.rollup.slots import Loaded
from pipeline.rollup.snapshot import Snapshot
from pipeline.rollup.store import SnapshotStore
from pipeline.sink import Sink

_TICK_SECONDS = 1.0
# Each hour that was stored since the last snapshot is looked up by whoever takes the partition over.
_HOURS_BETWEEN_SNAPSHOTS = 100

T = TypeVar("T")


class Consumer(Protocol):
    """What the job needs of the transport's consumer."""

    def held(self, tp: TopicPartition) -> PartitionBatches | None: ...  # noqa: D102 (as all below: see pipeline.transport)
    async def close_by_clock(self, tp: TopicPartition, offset: int, hour: int) -> bool: ...  # noqa: D102
    def forget_closings(self, tp: TopicPartition, before: int) -> None: ...  # noqa: D102


@dataclass(eq=False)
class _Partition:
    """What the job has of a partition; whoever changes it or reads its windows holds the lock."""

    tp: TopicPartition
    topic_id: str
    windows: PartitionWindows
    offset: int
    """Of the first record that isn't in the windows."""
    closings: deque[Closing]
    """Recorded by former owners, and not reached yet."""
    recovery: Recovery
    known_hours: int
    """Rows of hours before this one may have been stored by a former owner."""
    snapshots: tuple[int | None, int | None]
    """Offsets of the last two snapshots, the older one first."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    storing: bool = False
    rows: int = 0
    """Added since the last snapshot."""
    hours: int = 0
    """Stored since the last snapshot."""
    snapshot_at: float = field(default_factory=time.monotonic)

    @property
    def changed(self) -> bool:
        """Whether the last snapshot isn't all there is."""
        return self.offset != self.snapshots[1] or self.hours > 0


class Rollup:
    """Keeps the windows of the partitions that this worker has.

    Args:
        topic: the events come from.
        settings: of the worker.
        store: of the snapshots.
        sink: where the table is.
        consumer: the transport's, once there is one.
        renew: as in `pipeline.attempts`.
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
        self._tasks: set[asyncio.Task[None]] = set()
        self._folding = ThreadPoolExecutor(1, thread_name_prefix="rollup")
        self._saving = ThreadPoolExecutor(1, thread_name_prefix="rollup-snapshots")
        self._storing = ThreadPoolExecutor(1, thread_name_prefix="rollup-emission")
        self._attempts = Attempts(TABLE, renew, settings.worker)
        self._emission = Emission(TABLE, sink, self._attempts, self._storing)
        self._grace_ms = round(self._settings.grace_seconds * 1000)
        self._said_foreign = False
        self._log = structlog.get_logger("chimera.rollup")

    @property
    def trouble(self) -> str | None:
        """Why rows don't flow; None while all is well."""
        return f"{TABLE}: what has failed is tried again" if self._attempts.retrying else None

    # The agent's part.

    def take(self, batch: MicroBatch) -> None:
        """Add a micro-batch to the windows of its partition, after those taken before it; then acknowledge it."""
        self._soon(self._take(batch))

    async def _take(self, batch: MicroBatch) -> None:
        partition = self._partitions.get(TopicPartition(batch.topic, batch.partition))
        if partition is None:
            return
        async with partition.lock:
            rows = await self._decode(batch)
            if batch.live:
                await self._add(partition, batch, rows)
        batch.ack()
        self._store_closed(partition)
        due = partition.rows >= self._settings.snapshot_rows or partition.hours >= _HOURS_BETWEEN_SNAPSHOTS
        if due and not partition.writing.locked():
            self._soon(self._save(partition))

    async def _add(self, partition: _Partition, batch: MicroBatch, rows: Rows) -> None:
        if batch.last < partition.offset:
            return  # in the snapshot that was loaded
        events, foreign = await self._in_thread(_read, batch, rows)
        if foreign:
            self._say_foreign(batch, foreign)
        partition.recovery.note(events.ts)
        while partition.closings and partition.closings[0].offset <= batch.last:
            closing = partition.closings.popleft()
            before = part_of(events, batch, rows, partition.offset, closing.offset)
            await self._in_thread(self._fold, partition.windows, before)
            self._close(partition, closing)
            partition.offset = closing.offset
        await self._in_thread(
            self._fold, partition.windows, part_of(events, batch, rows, partition.offset, batch.last + 1)
        )
        partition.offset = batch.last + 1
        partition.rows += len(rows)
        self._close_known(partition)
        if batch.replayed or batch.again:
            partition.known_hours = max(partition.known_hours, partition.windows.watermark // HOUR_MS)
        partition.recovery.advance(partition.offset)

    def _fold(self, windows: PartitionWindows, events: Events) -> None:
        skewed = windows.skewed
        late = windows.add(events)
        metrics.ROLLUP_SKEWED.inc(windows.skewed - skewed)
        for lateness_ms in late.lateness_ms.tolist():
            metrics.ROLLUP_LATE_SECONDS.observe(lateness_ms / 1000)

    def _say_foreign(self, batch: MicroBatch, offsets: list[int]) -> None:
        metrics.ROLLUP_FOREIGN_KEYS.inc(len(offsets))
        if not self._said_foreign:
            self._said_foreign = True
            self._log.warning(
                "the key of a record isn't its session_id: a session may be in several partitions, and have several "
                "rows in an hour; see `chimera rollup verify`",
                topic=batch.topic,
                partition=batch.partition,
                offset=offsets[0],
            )

    # Closing and storing.

    def _close_known(self, partition: _Partition) -> None:
        """Close what former owners have closed by the clock at the offset that is reached."""
        while partition.closings and partition.closings[0].offset <= partition.offset:
            self._close(partition, partition.closings.popleft())

    def _close(self, partition: _Partition, closing: Closing) -> None:
        partition.windows.raise_watermark(closing.hour * HOUR_MS)
        partition.known_hours = max(partition.known_hours, closing.hour)

    def _store_closed(self, partition: _Partition) -> None:
        if not partition.storing:
            self._soon(self._store_all(partition))

    async def _store_all(self, partition: _Partition) -> None:
        """Store the rows of closed hours, the earliest hour first, and remove their windows."""
        if partition.storing:
            return
        partition.storing = True
        try:
            while (held := self._held(partition)) and (closed := partition.windows.closed_hours()):
                hour = closed[0]
                async with partition.lock:
                    rows = await self._in_thread(partition.windows.rows, hour)
                token = f"{partition.topic_id}/{partition.tp.partition}/hour/{hour}"
                await self._emission.store(held, token, rows, again=hour < partition.known_hours)
                async with partition.lock:
                    partition.windows.remove(hour)
                    partition.hours += 1
        finally:
            partition.storing = False

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
            partitions = list(self._partitions.values())
            for partition in partitions:
                self._soon(self._tick(partition))
            metrics.ROLLUP_OPEN_WINDOWS.set(sum(partition.windows.open_windows for partition in partitions))
            metrics.ROLLUP_CLOSED_HOURS.set(sum(len(partition.windows.closed_hours()) for partition in partitions))
            metrics.ROLLUP_WAITING_EVENTS.set(sum(partition.windows.waiting_events for partition in partitions))
            metrics.ROLLUP_RECORDS_TO_REPLAY.set(sum(partition.recovery.remaining for partition in partitions))

    async def _tick(self, partition: _Partition) -> None:
        partition.recovery.say(self._log)
        if self._hour_by_clock(partition) is not None:
            await self._close_by_clock(partition)
        self._store_closed(partition)
        due = time.monotonic() - partition.snapshot_at >= self._settings.snapshot_seconds
        if due and partition.changed and not partition.writing.locked():
            await self._save(partition)

    def _hour_by_clock(self, partition: _Partition) -> int | None:
        """The hour that begins where an idle partition's watermark would be by now; None when that closes nothing.

        In an idle partition, event time goes on as the clock does, from where the last record left it: so a replay of
        old events closes nothing early, however long it pauses.
        """
        windows, now_ms = partition.windows, round(self._clock() * 1000)
        idle_ms = now_ms - windows.newest_appended_at
        oldest = windows.oldest_hour
        if oldest is None or idle_ms < self._settings.idle_seconds * 1000:
            return None
        hour = min(now_ms - self._grace_ms, windows.event_watermark + idle_ms) // HOUR_MS
        return hour if oldest < hour else None

    async def _close_by_clock(self, partition: _Partition) -> None:
        """Record that the windows before an hour are closed, and only then close them."""
        async with partition.lock:
            hour = self._hour_by_clock(partition)
            if hour is None or self._held(partition) is None:
                return
            try:
                recorded = await self._consumer().close_by_clock(partition.tp, partition.offset, hour)
            except (KafkaError, UnavailableError) as error:
                self._log.warning("closing by the clock isn't recorded, will try again", error=repr(error))
                return
            if recorded:
                partition.windows.raise_watermark(hour * HOUR_MS)
                self._log.info(
                    "windows of an idle partition closed by the clock",
                    topic=partition.tp.topic,
                    partition=partition.tp.partition,
                    hour=hour,
                )
                partition.snapshot_at = float("-inf")  # then the record of the closing can be forgotten

    # Snapshots, taking partitions over, and letting them go.

    async def _save(self, partition: _Partition) -> None:
        """Write a snapshot of what there is when the one before it is written, unless that has it all."""
        async with partition.writing:
            async with partition.lock:
                if self._held(partition) is None or not partition.changed:
                    return
                windows = partition.windows
                snapshot = Snapshot(
                    topic_id=partition.topic_id,
                    partition=partition.tp.partition,
                    offset=partition.offset,
                    watermark=windows.watermark,
                    columns=await self._in_thread(windows.columns),
                )
                rows, hours, partition.snapshot_at = partition.rows, partition.hours, time.monotonic()
            try:
                with metrics.ROLLUP_SNAPSHOT_SECONDS.time():
                    await asyncio.get_running_loop().run_in_executor(self._saving, self._store.write, snapshot)
            except UnavailableError as error:
                self._log.warning("snapshot not written, the next one will hold more", error=str(error))
                return
            partition.rows -= rows
            partition.hours -= hours
            partition.snapshots = (partition.snapshots[1], snapshot.offset)
            if (older := partition.snapshots[0]) is not None and self._held(partition):
                self._consumer().forget_closings(partition.tp, older)

    async def take_over(self, taken: Mapping[TopicPartition, Takeover]) -> dict[TopicPartition, int]:
        """Go on from the newest snapshots.

        Returns:
            The offset that each partition's log is needed from.

        Raises:
            UnavailableError: the broker doesn't answer.
            ChimeraError: it refuses.
        """
        self._partitions = {}
        numbers_of: dict[str, list[int]] = {}
        for tp, takeover in taken.items():
            numbers_of.setdefault(takeover.topic_id, []).append(tp.partition)
        loaded = {
            (topic_id, number): found
            for topic_id, numbers in numbers_of.items()
            for number, found in (await self._load(topic_id, numbers)).items()
        }
        for tp, takeover in taken.items():
            found = loaded.get((takeover.topic_id, tp.partition))
            snapshot = found.snapshot if found else None
            offset = snapshot.offset if snapshot else takeover.beginning
            windows = (
                PartitionWindows.restore(self._grace_ms, snapshot.watermark, snapshot.columns)
                if snapshot
                else PartitionWindows(self._grace_ms)
            )
            partition = self._partitions[tp] = _Partition(
                tp=tp,
                topic_id=takeover.topic_id,
                windows=windows,
                offset=max(offset, takeover.beginning),
                closings=deque(takeover.closings),
                recovery=Recovery(tp, snapshot, takeover),
                known_hours=windows.watermark // HOUR_MS,
                snapshots=(found.older_offset, offset) if found else (None, None),
            )
            self._close_known(partition)
        return {tp: partition.offset for tp, partition in self._partitions.items()}

    async def _load(self, topic_id: str, numbers: list[int]) -> Mapping[int, Loaded]:
        said_at = time.monotonic()

        def progress(read: int, total: int) -> None:
            nonlocal said_at
            if time.monotonic() - said_at >= 5:
                said_at = time.monotonic()
                self._log.info("loading snapshots", records=read, of=total)

        load = partial(self._store.load, topic_id, numbers, progress)
        return await asyncio.get_running_loop().run_in_executor(self._saving, load)

    async def release(self, partitions: set[TopicPartition]) -> None:
        """Write snapshots of partitions that go, so that the next owner has little to replay."""
        await asyncio.gather(*(self._save(partition) for tp, partition in self._partitions.items() if tp in partitions))

    # In the background.

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._see_through(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _see_through(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except LostPartitionError:
            pass  # its new owner does the same
        except Exception as error:  # noqa: BLE001 (whatever it is, going on could lose rows)
            self._halt(error)

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._folding, work, *args)


def _read(batch: MicroBatch, rows: Rows) -> tuple[Events, list[int]]:
    """The events, and the offsets of those with another key than their session, which were said before a replay."""
    return events_of(batch, rows), [] if batch.replayed else foreign_keys(batch, rows)
