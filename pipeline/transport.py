"""The Faust transport whose messages are micro-batches: entry point `batch` of the group `faust.transports`.

A topic with a batch policy is delivered as micro-batches: one Faust message each, its value a `MicroBatch`. Every other
topic of the app stays Faust's own, record by record. What is guaranteed for micro-batches:
- only `MicroBatch.ack` acknowledges, called in the app's event loop; what Faust acknowledges by itself (after each
  iteration, also one that raised or was skipped) counts for nothing;
- what isn't acknowledged is delivered again after a restart or a rebalance, and nothing that follows it is committed;
- a micro-batch is delivered when its range is recorded beside the committed offset, by a member the broker knows as the
  partition's owner; who takes the partition over gets the same ranges again, with the same tokens, before any new one;
- an offset is committed when every record before it is acknowledged, and not before; a failed commit is made again;
- memory is bounded: a partition with enough micro-batches in flight isn't fetched from until one is acknowledged.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode import Service

from pipeline import metrics
from pipeline.batches import MicroBatch, PartitionBatches, State
from pipeline.broker import NOBODY, BrokerThread
from pipeline.errors import ChimeraError, HaltError, UnavailableError
from pipeline.families import BatchPolicy
from pipeline.ranges import Ranges, lease_clock, parse

_RECHECK_SECONDS = 0.05  # how soon an acknowledgement is noticed while records are waited for
_TOPIC_CHECK_SECONDS = 10.0
_RETRY_SECONDS = 1.0
_NO_PARTITION = TP("", -1)  # polling for this fetches nothing, and keeps the consumer in its group

T = TypeVar("T")


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
    topic_ids: Callable[[Iterable[str]], Mapping[str, str]] = lambda topics: dict.fromkeys(topics, "-")
    """Asks the broker for the ids of those of the topics that there are; called in a thread, before each delivery."""
    halt: Callable[[ChimeraError], None] | None = None
    """Told of what makes going on impossible; without it the app crashes."""


class Consumer(driver.Consumer):
    """Faust's consumer, with micro-batches for the topics that have a batch policy."""

    _thread: BrokerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._partitions: dict[TP, PartitionBatches] = {}
        self._messages: dict[MicroBatch, ConsumerMessage] = {}  # in which those in flight were delivered
        self._progress = asyncio.Event()
        self._recording = asyncio.Lock()  # what is committed later must be what was the case later
        self._membership = NOBODY  # of the member that was assigned the partitions
        super().__init__(*args, **kwargs)
        self.batching: Batching = getattr(self.app, "batching", Batching())

    def _new_consumer_thread(self) -> BrokerThread:
        return BrokerThread(self, loop=self.loop, beacon=self.beacon)

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
            await asyncio.sleep(_RETRY_SECONDS)
            return None, None
        if not self.flow_active:
            return None, None  # a rebalance has begun; after it, fetching starts at the committed offsets
        now = monotonic()
        records = {tp: some for tp, some in fetched.items() if tp.topic not in self.batching.policies}
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
                        "to come, so it has lost records that were acknowledged; find out why, then set the group's "
                        "offset by hand"
                    )
                )
                self._let_go({TP(partition.topic, partition.partition)})
                return
            if beginning > expected:  # else there never was a record: markers of transactions take offsets too
                self._say_lost(partition, expected, min(got, beginning))
        partition.add(records, now)

    async def _where_the_log_begins(self, partition: PartitionBatches) -> int | None:
        """Its first offset; None when the partition isn't ours any more, or has become that of another topic."""
        tp = TP(partition.topic, partition.partition)

        async def ask() -> int:
            await self._give_up_topics_made_anew({partition.topic})
            return (await self.earliest_offsets(tp))[tp]

        return await self._until_answered(ask, lambda: self.flow_active and partition.live)

    def _say_lost(self, partition: PartitionBatches, expected: int, beginning: int) -> None:
        """Retention has deleted records that weren't consumed yet."""
        metrics.RECORDS_LOST.labels(partition.topic).inc(beginning - expected)
        self.log.error(
            "%s-%d: %d records are lost: offsets %d to %d were deleted by retention before they were consumed",
            partition.topic,
            partition.partition,
            beginning - expected,
            expected,
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

    async def _until_answered(self, ask: Callable[[], Awaitable[T]], wanted: Callable[[], bool]) -> T | None:
        """Ask the broker again and again, as long as the answer is wanted; then None."""
        while wanted():
            try:
                return await ask()
            except (KafkaError, UnavailableError) as error:
                self.log.warning("Kafka doesn't answer, will be asked again: %r", error)
            except HaltError as error:
                self._halt(error)
            await asyncio.sleep(_RETRY_SECONDS)
        return None

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
        others = {tp for tp in active if tp.topic not in self.batching.policies}
        ours = active & self._partitions.keys()
        if not self._memory_is_short():
            return others | {tp for tp in ours if self._partitions[tp].hungry}
        # What waits to be cut again can't be cut short: one such partition at a time may go on.
        incomplete = sorted(tp for tp in ours if self._partitions[tp].incomplete and not self._partitions[tp].full)
        return others | set(incomplete[:1])

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
        try:
            done = await self._record()
        except KafkaError as error:
            self.log.warning("Offsets not committed, will try again: %r", error)
            done = False
        except HaltError as error:
            self._halt(error)
            done = False
        return bool(await super().force_commit(topics, start_new_transaction)) or done

    async def _record(self, also: Iterable[TP] = ()) -> bool:
        """Record what is done and what is in flight, wherever it has changed, in one commit.

        Where the broker refuses, because another member may have the partitions, they are let go of.

        Args:
            also: partitions to record even if nothing has changed.

        Raises:
            KafkaError: the broker doesn't answer.
        """
        async with self._recording:
            states = {tp: batches.state for tp, batches in self._partitions.items() if batches.changed or tp in also}
            if not states:
                return False
            commits = {tp: self._commit_of(tp, state) for tp, state in states.items()}
            now = lease_clock()
            if not await self._thread.commit_ranges(self._membership, commits):
                self.log.info("Not recorded: the partitions are being reassigned")
                self._let_go(set(states))
                return False
            for tp in states.keys() & self._partitions.keys():
                self._partitions[tp].recorded(states[tp], now)
            self.app.monitor.on_tp_commit({tp: state.offset for tp, state in states.items()})
            return True

    def _commit_of(self, tp: TP, state: State) -> OffsetAndMetadata:
        return OffsetAndMetadata(state.offset, str(Ranges(self._partitions[tp].topic_id, state.ends)))

    async def renew(self, batch: MicroBatch) -> bool:
        """Record the range of a micro-batch again, as if it were new; False when it isn't ours any more."""
        await self._until_answered(
            lambda: self._record([TP(batch.topic, batch.partition)]),
            lambda: batch.live,
        )
        return batch.live

    # Taking partitions over.

    async def _take_over(self, partitions: set[TP]) -> None:
        """Go on where the group has got to: with the ranges in flight that are recorded, as they are recorded.

        Raises:
            KafkaError, UnavailableError: the broker doesn't answer.
            HaltError: what is recorded is unknown to us.
        """
        membership = self._membership
        topic_ids = await asyncio.to_thread(self.batching.topic_ids, {tp.topic for tp in partitions})
        beginnings = await self.earliest_offsets(*partitions)
        async with self._recording:  # so that nothing of ours is on its way
            committed = await self._thread.read_commits(partitions)
            if membership != self._membership:
                return  # another assignment has begun, and its turn comes
            states = {
                tp: self._state_of(tp, committed.get(tp), topic_ids[tp.topic]) or State(beginnings[tp], ())
                for tp in partitions
                if tp.topic in topic_ids  # else it was deleted just now
            }
            for tp, state in states.items():
                await self._seek(tp, state.offset)
                # The log may end before that; Faust would drop what then comes.
                self._read_offset[tp] = None
                self._partitions[tp] = PartitionBatches(
                    tp.topic,
                    topic_ids[tp.topic],
                    tp.partition,
                    state,
                    policy=self.batching.policies[tp.topic],
                    limit=self.batching.batches_in_flight,
                    on_ack=self._on_ack,
                )

    def _state_of(self, tp: TP, commit: OffsetAndMetadata | None, topic_id: str) -> State | None:
        """What is recorded of a partition; None when nothing is, or only of a topic that had its name before."""
        if commit is None:
            return None
        where = f"group {self.app.conf.id}, {tp.topic}-{tp.partition}"
        ranges = parse(commit.metadata, where, commit.offset)
        if ranges is not None and ranges.topic_id != topic_id:
            self.log.warning("%s: the topic was created anew and is consumed from its beginning", where)
            return None
        return State(commit.offset, ranges.ends if ranges else ())

    @Service.task
    async def _watch_topics(self) -> None:
        """Have partitions assigned that we should have and don't, or whose topic has become another one."""
        while self.batching.policies and not self.should_stop:
            await self.sleep(_TOPIC_CHECK_SECONDS)
            if not self.flow_active:
                continue
            try:
                there = await self._give_up_topics_made_anew(set(self.batching.policies))
            except UnavailableError as error:
                self.log.info("Can't look at the topics' ids: %s", error)
                continue
            await self._thread.notice(there)
            if self.flow_active and self._ours() - self._partitions.keys():
                await self._thread.rejoin()

    async def _give_up_topics_made_anew(self, topics: set[str]) -> set[str]:
        """Let go of the partitions of topics that were deleted and have been created again under their names.

        Returns:
            Those of the topics that there are.

        Raises:
            UnavailableError: the broker doesn't answer.
        """
        try:
            now = await asyncio.to_thread(self.batching.topic_ids, topics)
        except HaltError as error:
            self._let_go({tp for tp in self._partitions if tp.topic in topics})
            self._halt(error)
            return set()
        anew = {
            tp
            for tp, batches in self._partitions.items()
            if tp.topic in topics and now.get(tp.topic) not in {None, batches.topic_id}
        }
        if anew:
            self.log.warning("Topics were created anew: %s", ", ".join(sorted({tp.topic for tp in anew})))
            self._let_go(anew)
            await self._thread.rejoin()
        return set(now)

    def _ours(self) -> set[TP]:
        return {tp for tp in self.assignment() if tp.topic in self.batching.policies}

    def _halt(self, error: ChimeraError) -> None:
        if self.batching.halt is None:
            raise error
        self.batching.halt(error)

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
        self._let_go(set(self._partitions))
        self._membership = self._thread.membership
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_stop(self) -> None:
        """Commit what is done, then let go of everything."""
        await super().on_stop()
        self._let_go(set(self._partitions))

    async def perform_seek(self) -> None:
        """Go back to the committed offsets, with nothing in flight; if the broker is away, as soon as it's back."""
        self._let_go(set(self._partitions))
        try:
            await super().perform_seek()
            if ours := self._ours():
                await self._take_over(ours)
        except (KafkaError, UnavailableError) as error:
            self.log.warning("Kafka doesn't answer, the partitions will be assigned anew: %r", error)
            await self._thread.rejoin()
        except ChimeraError as error:
            self._halt(error)

    def _let_go(self, partitions: set[TP]) -> None:
        for tp in partitions & self._partitions.keys():
            self._partitions.pop(tp).close()
        for batch in [batch for batch in self._messages if not batch.live]:
            self._forget(batch)


class Transport(driver.Transport):
    """Selected by `broker="batch://host:port"`."""

    Consumer = Consumer
    driver_version = f"{driver.Transport.driver_version} (micro-batches)"
