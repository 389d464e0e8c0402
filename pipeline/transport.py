"""The Faust transport whose messages are micro-batches: entry point `batch` of the group `faust.transports`.

A topic with a batch policy is delivered as micro-batches: one Faust message each, its value a `MicroBatch`. Every other
topic of the app stays Faust's own, record by record. What is guaranteed for micro-batches:
- only `MicroBatch.ack` acknowledges, called in the app's event loop; what Faust acknowledges by itself (after each
  iteration, also one that raised or was skipped) counts for nothing;
- what isn't acknowledged is delivered again after a restart or a rebalance, and nothing that follows it is committed;
- an offset is committed when every record before it is acknowledged, and not before; a failed commit is made again;
- memory is bounded: a partition with enough micro-batches in flight isn't fetched from until one is acknowledged.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from inspect import GEN_CREATED, getgeneratorstate
from time import monotonic
from typing import Any

from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import CommitFailedError, CorruptRecordException, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from pipeline.batches import MicroBatch, PartitionBatches
from pipeline.families import BatchPolicy

# aiokafka has one fetch at a time under way to a broker. One for partitions that have nothing new would keep those
# waiting that have, for 1.5 s as Faust has it.
_FETCH_WAIT_MS = 100
_RECHECK_SECONDS = 0.05  # how soon an acknowledgement is noticed while records are waited for
_NO_PARTITION = TP("", -1)  # polling for this fetches nothing, and keeps the consumer in its group


@dataclass(frozen=True, slots=True)
class Batching:
    """Which topics of an app come as micro-batches, and how many of these at once; the app has it as `batching`."""

    policies: Mapping[str, BatchPolicy] = field(default_factory=dict)
    """Topic to batch policy; in the app, the topic's serializers are `raw`."""
    batches_in_flight: int = 2
    """Of one partition, between cut and ack."""
    max_bytes: int = 32 * 1024 * 1024
    """Keys and values in memory, of all partitions; above it fetching pauses."""
    drain_seconds: float = 8.0
    """How long a rebalance or a stop waits for micro-batches in flight."""


class _LightRecords:
    """Stands in for aiokafka's records of a fetch: what its C code reads, without a Python object around each record.

    That costs a quarter of the CPU. Offset, timestamp, key, value and headers have the same names either way.
    """

    def __init__(self, theirs: PartitionRecords) -> None:
        self.next_fetch_offset = theirs.next_fetch_offset
        self._records = self._unpack(theirs._records, check_crcs=theirs._check_crcs)  # noqa: SLF001

    def __iter__(self) -> Iterator[Any]:
        return self._records

    def _unpack(self, fetched: Any, *, check_crcs: bool) -> Iterator[Any]:
        while fetched.has_next():
            batch = fetched.next_batch()
            if check_crcs and not batch.validate_crc():
                raise CorruptRecordException
            if not batch.is_control_batch:
                for record in batch:
                    if record.offset >= self.next_fetch_offset:  # a fetch begins with the whole of a compressed batch
                        self.next_fetch_offset = record.offset + 1
                        yield record
            self.next_fetch_offset = batch.next_offset


def _untouched(records: PartitionRecords) -> bool:
    return getgeneratorstate(records._records_iterator) == GEN_CREATED  # noqa: SLF001


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that talks to the broker."""

    consumer: "Consumer"

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # noqa: SLF001 (Faust offers no setting)
        return consumer

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 (Faust's signature)
        max_records: int | None = None,
    ) -> Any:
        """Take what has been fetched, or what comes first within the timeout.

        What comes in the course of a rebalance is put back: the consumer would drop it.
        """
        fetcher = consumer._fetcher  # noqa: SLF001 (aiokafka offers no other way in, nor does Faust take one)
        self._lighten(fetcher)
        records = await super()._fetch_records(consumer, active_partitions, 0, max_records)
        if not records and timeout:
            fetched = fetcher._create_fetch_waiter()  # noqa: SLF001
            await asyncio.wait([fetched], timeout=timeout)
            if not fetched.cancel():
                fetched.result()  # raises when the group coordinator has given up
            self._lighten(fetcher)
            records = await super()._fetch_records(consumer, active_partitions, 0, max_records)
        if self.consumer.flow_active:
            return records
        for tp, some in records.items():
            consumer.seek(tp, some[0].offset)
        return {}

    def _lighten(self, fetcher: Any) -> None:
        if self.consumer.in_transaction:
            return  # aiokafka leaves out what was aborted
        policies = self.consumer.batching.policies
        for tp, fetched in fetcher._records.items():  # noqa: SLF001
            theirs = fetched._partition_records if isinstance(fetched, FetchResult) else None  # noqa: SLF001
            if isinstance(theirs, PartitionRecords) and tp.topic in policies and _untouched(theirs):
                fetched._partition_records = _LightRecords(theirs)  # noqa: SLF001

    async def commit_batches(self, offsets: Mapping[TP, int]) -> bool:
        """Commit; False when the broker didn't take it."""
        committed: bool = await self.call_thread(self._commit_batches, offsets)
        return committed

    async def _commit_batches(self, offsets: Mapping[TP, int]) -> bool:
        wanted = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
        try:
            await self._ensure_consumer().commit(wanted)
        except (CommitFailedError, IllegalStateError):
            self.log.info("Offsets not committed: the partitions are being reassigned")
            return False
        except KafkaError as error:
            self.log.warning("Offsets not committed, will try again: %r", error)
            return False
        self.tp_last_committed_at.update(dict.fromkeys(offsets, monotonic()))
        return True


class Consumer(driver.Consumer):
    """Faust's consumer, with micro-batches for the topics that have a batch policy."""

    _thread: _ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._partitions: dict[TP, PartitionBatches] = {}
        self._messages: dict[MicroBatch, ConsumerMessage] = {}  # in which those in flight were delivered
        self._progress = asyncio.Event()
        super().__init__(*args, **kwargs)
        self.batching: Batching = getattr(self.app, "batching", Batching())

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # Fetching: where Faust expects records it gets micro-batches.

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:  # noqa: ASYNC109 (Faust's signature)
        """Wait for records, and put those with a batch policy into micro-batches."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type] # mode takes any event
        active = self._get_active_partitions()
        hungry = self._hungry(active)
        busy = any(batches.busy for batches in self._partitions.values())
        patience = min(_RECHECK_SECONDS if busy else timeout, self._until_due(active))
        if not hungry:
            await self._wait_for_progress(patience)
        fetched = await self._getmany(hungry or {_NO_PARTITION}, patience if hungry else 0.0)
        if not self.flow_active:
            return None, None  # a rebalance has begun; after it, fetching starts at the committed offsets
        now = monotonic()
        records = {}
        for tp, some in fetched.items():
            if tp.topic in self.batching.policies:
                self._batches_of(tp).add(some, now)
            else:
                records[tp] = some
        hurry = self._memory_is_short()
        for tp in active & self._partitions.keys():
            records[tp] = list(self._partitions[tp].cut(now, hurry=hurry))
        return records, active

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        if not isinstance(record, MicroBatch):
            return super()._to_message(tp, record)
        value: Any = record
        message = self._messages[record] = ConsumerMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=record.last,
            timestamp=record.records[-1].timestamp / 1000,
            timestamp_type=0,
            headers=None,
            key=None,
            value=value,
            checksum=None,
            serialized_value_size=record.size,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )
        message.acked = True  # so that Faust doesn't do it
        return message

    def _hungry(self, active: set[TP]) -> set[TP]:
        """The partitions to fetch from: Faust's own, and those with room for more."""
        short = self._memory_is_short()
        return {
            tp for tp in active if tp.topic not in self.batching.policies or (self._batches_of(tp).hungry and not short)
        }

    def _memory_is_short(self) -> bool:
        return sum(batches.held_bytes for batches in self._partitions.values()) >= self.batching.max_bytes

    def _until_due(self, active: set[TP]) -> float:
        """Seconds until the first micro-batch that may be cut has waited long enough."""
        due = (self._partitions[tp].due_at for tp in active & self._partitions.keys() if not self._partitions[tp].full)
        return max(0.0, min((at for at in due if at is not None), default=float("inf")) - monotonic())

    async def _wait_for_progress(self, seconds: float) -> None:
        """Wait for an acknowledgement, but no longer than this."""
        self._progress.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._progress.wait(), seconds)

    def _batches_of(self, tp: TP) -> PartitionBatches:
        batches = self._partitions.get(tp)
        if batches is None:
            policy, limit = self.batching.policies[tp.topic], self.batching.batches_in_flight
            batches = self._partitions[tp] = PartitionBatches(tp.topic, tp.partition, policy, limit, self._on_ack)
        return batches

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets between two messages are gaps to Faust; between micro-batches they mean nothing."""
        if tp.topic not in self.batching.policies:
            await super()._add_gap(tp, offset_from, offset_to)

    # Acknowledging and committing.

    def _on_ack(self, batch: MicroBatch) -> None:
        self._forget(batch)
        self._progress.set()

    def _taken(self) -> list[MicroBatch]:
        """What agents have taken, and not acknowledged."""
        return [batch for batch, message in self._messages.items() if message in self._unacked_messages]

    def _forget(self, batch: MicroBatch) -> None:
        if message := self._messages.pop(batch, None):
            self._unacked_messages.discard(message)

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what may be committed, of micro-batches and of Faust's own topics."""
        done = await self._commit_batches(topics)
        return bool(await super().force_commit(topics, start_new_transaction)) or done

    async def _commit_batches(self, topics: Any) -> bool:
        assigned = self.assignment()
        offsets = {
            tp: batches.committable
            for tp, batches in self._partitions.items()
            if batches.committable is not None
            and tp in assigned
            and (topics is None or tp in topics or tp.topic in topics)
        }
        if not offsets or not await self._thread.commit_batches(offsets):
            return False
        for tp, offset in offsets.items():
            if tp in self._partitions:
                self._partitions[tp].committed(offset)
        self.app.monitor.on_tp_commit(offsets)
        return True

    # Rebalancing and stopping.

    async def wait_empty(self) -> None:
        """Wait for what agents have taken, but no longer than a rebalance may take; then commit.

        What isn't acknowledged by then is no longer live: it is delivered again, here or to another worker.
        """
        deadline = monotonic() + self.batching.drain_seconds
        while self._taken() and monotonic() < deadline:
            await self._wait_for_progress(_RECHECK_SECONDS)
        if late := self._taken():
            self.log.warning("Not done in %.0f s, left to be delivered again: %r", self.batching.drain_seconds, late)
            for batch in late:
                self._forget(batch)
        await super().wait_empty()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Commit what is done, then let go of the partitions."""
        await super().on_partitions_revoked(revoked)
        await self.commit()  # the one above does nothing when it finds another, begun earlier, under way
        self._let_go(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Fetch nothing before Faust is ready for it; a member that had no partitions finds the flow open."""
        self.stop_flow()
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_stop(self) -> None:
        """Commit what is done, then let go of everything."""
        await super().on_stop()
        self._let_go(set(self._partitions))

    async def perform_seek(self) -> None:
        """Go back to the committed offsets, with nothing in flight."""
        self._let_go(set(self._partitions))
        await super().perform_seek()
        # The log may end before the committed offset, after an unclean election; Faust would drop what then comes.
        self._read_offset.update({tp: None for tp in self._read_offset if tp.topic in self.batching.policies})

    def _let_go(self, partitions: set[TP]) -> None:
        for tp in partitions & self._partitions.keys():
            self._partitions.pop(tp).close()
        for batch in [batch for batch in self._messages if not batch.live]:
            self._forget(batch)


class Transport(driver.Transport):
    """Selected by `broker="batch://host:port"`."""

    Consumer = Consumer
    driver_version = f"{driver.Transport.driver_version} (micro-batches)"
