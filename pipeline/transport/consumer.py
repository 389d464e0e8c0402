"""The Faust transport whose messages are micro-batches: entry point `batch` of the group `faust.transports`.

A topic with a batch policy is delivered as micro-batches: one Faust message each, its value a `MicroBatch`. Every other
topic of the app stays Faust's own, record by record. What is guaranteed for micro-batches:
- only `MicroBatch.ack` acknowledges, called in the app's event loop; what Faust acknowledges by itself (after each
  iteration, also one that raised or was skipped) counts for nothing;
- what isn't acknowledged is delivered again after a restart or a rebalance, and nothing that follows it is committed;
- a micro-batch is delivered when its range is recorded beside the committed offset, by a member the broker knows as the
  partition's owner; who takes the partition over gets the same ranges again, with the same tokens, before any new one;
- an offset is committed when every record before it is acknowledged, and not before; a failed commit is made again;
- what is derived from a topic (`Deriver`) says from where on it needs the log: what is below the committed offset comes
  once more, marked as replayed, before anything else; what it closes by the clock is recorded beside the offset;
- memory is bounded: a partition with enough micro-batches in flight isn't fetched from until one is acknowledged.
"""

import asyncio
from time import monotonic
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from pipeline import metrics
from pipeline.errors import ChimeraError, HaltError
from pipeline.transport.assignment import RETRY_SECONDS
from pipeline.transport.batches import MicroBatch, PartitionBatches
from pipeline.transport.options import Deriver, TransportOptions
from pipeline.transport.rebalance import SHORTENED, Successor

__all__ = ["Deriver", "MicroBatchConsumer", "Transport", "TransportOptions"]

_RELEASE_SECONDS = 1.5  # even when ingest has used up the time to drain
_RECHECK_SECONDS = 0.05  # how soon an acknowledgement is noticed while records are waited for
_NO_PARTITION = TP("", -1)  # polling for this fetches nothing, and keeps the consumer in its group


class MicroBatchConsumer(Successor):
    """Faust's consumer, with micro-batches for the topics that have a batch policy."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._drained_by: float | None = None  # when the revoke or stop under way has waited long enough
        super().__init__(*args, **kwargs)

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
        try:
            fetched = await self._getmany(hungry or {_NO_PARTITION}, patience if hungry else 0.0)
        except HaltError as error:
            self._halt(error)
            await asyncio.sleep(RETRY_SECONDS)
            return None, None
        if not self.flow_active:
            return None, None  # a rebalance has begun; after it, fetching starts at the committed offsets
        now = monotonic()
        records = {tp: some for tp, some in fetched.items() if tp.topic not in self.options.policies}
        # Whose records these are is settled now: adding some may take long, and others may take the partitions' places.
        for partition, some in [(self._partitions[tp], fetched[tp]) for tp in fetched.keys() & self._partitions.keys()]:
            await self._add(partition, some, now)
        hurry = self._memory_is_short()
        batches = {tp: list(self._partitions[tp].cut(now, hurry=hurry)) for tp in active & self._partitions.keys()}
        if not await self._may_be_delivered([batch for some in batches.values() for batch in some]):
            return None, None
        return records | batches, active

    async def _add(self, partition: PartitionBatches, records: list[Any], now: float) -> None:
        """Let records wait; those that are missing before them are looked into."""
        if not partition.live:
            return
        expected, got = partition.next_offset, records[0].offset
        if got != expected:
            beginning = await self._where_the_log_begins(partition)
            if beginning is None or not partition.live:
                return
            if got < expected:
                self._halt(
                    HaltError(
                        f"{partition.topic}-{partition.partition}: Kafka's log has offset {got} where {expected} was "
                        f"to come, {SHORTENED}"
                    )
                )
                self._let_go({TP(partition.topic, partition.partition)})
                return
            if beginning > expected:  # else there never was a record: markers of transactions take offsets too
                self._say_deleted(partition, expected, min(got, beginning))
        partition.add(records, now)

    async def _where_the_log_begins(self, partition: PartitionBatches) -> int | None:
        """Its first offset; None when the partition isn't ours any more, or has become that of another topic."""
        tp = TP(partition.topic, partition.partition)

        async def ask() -> int:
            await self._give_up_topics_made_anew({partition.topic})
            return (await self.earliest_offsets(tp))[tp]

        return await self._until_answered(ask, lambda: self.flow_active and partition.live)

    def _say_deleted(self, partition: PartitionBatches, expected: int, beginning: int) -> None:
        """Retention has deleted records that weren't consumed yet, or would have been replayed."""
        place, done = f"{partition.topic}-{partition.partition}", partition.state.offset
        if expected < done:
            gone = min(done, beginning)
            metrics.ROLLUP_RECORDS_MISSING.inc(gone - expected)
            self.log.error("%s: offsets %d to %d were deleted before they were replayed", place, expected, gone - 1)
        if (lost := beginning - max(expected, done)) > 0:
            metrics.RECORDS_LOST.labels(partition.topic).inc(lost)
            self.log.error(
                "%s: %d records are lost: offsets %d to %d were deleted by retention before they were consumed",
                place,
                lost,
                beginning - lost,
                beginning - 1,
            )

    async def _may_be_delivered(self, batches: list[MicroBatch]) -> bool:
        """Record the ranges that were cut, however long the broker takes; False when they aren't ours any more.

        The topics are looked at again: what was fetched may come from another one that was given the name meanwhile.
        """
        if not batches:
            return True

        async def ask() -> None:
            await asyncio.gather(self._record(), self._give_up_topics_made_anew({batch.topic for batch in batches}))

        def wanted() -> bool:
            return self.flow_active and not self.should_stop and all(batch.live for batch in batches)

        await self._until_answered(ask, wanted)
        return wanted()

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
        others = {tp for tp in active if tp.topic not in self.options.policies}
        ours = active & self._partitions.keys()
        if not self._memory_is_short():
            return others | {tp for tp in ours if self._partitions[tp].hungry}
        # What waits to be cut again can't be cut short: one such partition at a time may go on.
        incomplete = sorted(tp for tp in ours if self._partitions[tp].incomplete and not self._partitions[tp].full)
        return others | set(incomplete[:1])

    def _memory_is_short(self) -> bool:
        return sum(batches.held_bytes for batches in self._partitions.values()) >= self.options.max_bytes

    def _until_due(self, active: set[TP]) -> float:
        """Seconds until the first micro-batch that may be cut has waited long enough."""
        due = (self._partitions[tp].due_at for tp in active & self._partitions.keys() if not self._partitions[tp].full)
        return max(0.0, min((at for at in due if at is not None), default=float("inf")) - monotonic())

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets between two messages are gaps to Faust; between micro-batches they mean nothing."""
        if tp.topic not in self.options.policies:
            await super()._add_gap(tp, offset_from, offset_to)

    # Rebalancing and stopping.

    async def wait_empty(self) -> None:
        """Wait for what agents have taken, but no longer than a rebalance may take; then commit.

        What isn't acknowledged by then is no longer live: it is delivered again, here or to another worker.
        """
        if self._drained_by is None:
            self._drained_by = monotonic() + self.options.drain_seconds
        while self._taken() and monotonic() < self._drained_by:
            await self._wait_for_progress(_RECHECK_SECONDS)
        if late := self._taken():
            self.log.warning("Not done in %.0f s, left to be delivered again: %r", self.options.drain_seconds, late)
            for batch in late:
                self._forget(batch)
        await super().wait_empty()

    def _taken(self) -> list[MicroBatch]:
        """What agents have taken, and not acknowledged."""
        return [batch for batch, message in self._messages.items() if message in self._unacked_messages]

    def stop_flow(self) -> None:
        """Let nothing come any more. Faust clears the agents' queues: what waits there for one, none can finish."""
        super().stop_flow()
        queues: list[Any] = [topic.queue for topic in self.app.topics]
        for event in [event for queue in queues for event in queue._queue]:  # noqa: SLF001 (to look without taking)
            if isinstance(event.value, MicroBatch):
                self._forget(event.value)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Commit what is done, then let go of the partitions."""
        self._drained_by = monotonic() + self.options.drain_seconds
        await super().on_partitions_revoked(revoked)
        await self.commit()  # the one above does nothing when it finds another, begun earlier, under way
        await self._release(revoked)
        self._let_go(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Fetch nothing before Faust is ready for it; a member that had no partitions finds the flow open."""
        self.stop_flow()
        self._let_go(set(self._partitions))
        self._membership = self._thread.membership
        self._drained_by = None
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_stop(self) -> None:
        """Commit what is done, then let go of everything."""
        await super().on_stop()
        await self._release(set(self._partitions))
        self._let_go(set(self._partitions))

    async def _release(self, partitions: set[TP]) -> None:
        """Have the deriver release what is ours, in what is left of the drain, or a moment; it can do without."""
        ours = self.options.derived(partitions & self._partitions.keys())
        if self.options.deriver is None or not ours or self._thread.membership != self._membership:
            return
        try:
            async with asyncio.timeout(max(_RELEASE_SECONDS, (self._drained_by or 0.0) - monotonic())):
                await self.options.deriver.release(ours)
        except TimeoutError:
            self.log.warning("Not released in time: %r", ours)
        except ChimeraError as error:
            self.log.warning("Not released: %r: %s", ours, error)
        except Exception:
            self.log.exception("Not released: %r", ours)


class Transport(driver.Transport):
    """Selected by `broker="batch://host:port"`."""

    Consumer = MicroBatchConsumer
    driver_version = f"{driver.Transport.driver_version} (micro-batches)"
