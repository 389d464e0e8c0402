"""The Faust transport whose messages are micro-batches: entry point `batch` of the group `faust.transports`.

A topic with a batch policy is delivered as micro-batches: one Faust message each, its value a `MicroBatch`. Each other
topic of the app stays Faust's own, record by record. Guarantees for micro-batches:
- Only `MicroBatch.ack`, called in the app's event loop, acknowledges. Faust's own acknowledgements count for nothing;
  Faust makes them after each iteration, also after one that raised or was skipped.
- A micro-batch that isn't acknowledged is delivered again after a restart or a rebalance, and no later offset is
  committed.
- A micro-batch is delivered after its range is committed, by a member that the broker knows as the partition's owner.
  The next owner gets the same ranges again, with the same tokens, before any new range.
- An offset is committed when all records before it are acknowledged, not earlier. A failed commit is made again.
- A deriver (`pipeline.transport.deriver`) says from which offset it needs the log. Records between that offset and the
  committed one are delivered again, marked as replayed, before all others. Its closings by the clock are committed
  beside the offset.
- Memory is bounded: a partition with enough micro-batches in flight isn't fetched from until one is acknowledged.

The classes here only delegate: `pipeline.transport.member` has the logic, `pipeline.transport.adapter` the requests.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode import Service

from pipeline.retry import Held
from pipeline.transport.adapter.broker import ThreadBroker
from pipeline.transport.adapter.thread import BrokerThread
from pipeline.transport.assignment import Assignment
from pipeline.transport.broker import BrokerTrouble, TopicPartition
from pipeline.transport.commit_metadata import JointInsert
from pipeline.transport.context import Context
from pipeline.transport.deliveries import Deliveries
from pipeline.transport.member import GroupMember
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.options import TransportOptions
from pipeline.transport.partition import PartitionBatches


class MicroBatchConsumer(driver.Consumer):
    """Faust's consumer, with micro-batches for the topics that have a batch policy."""

    _thread: BrokerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._options: TransportOptions = self._thread.options
        self._deliveries = Deliveries(lambda: self.unacked)
        self.member = GroupMember(
            Context(
                broker=ThreadBroker(self._thread),
                flow=self,
                options=self._options,
                log=self.log,
                group=self.app.conf.id,
                assignment=Assignment(self._deliveries.forget, self._deliveries.forget_lost),
            ),
            on_commit=self._note_commit,
        )

    def _new_consumer_thread(self) -> BrokerThread:
        return BrokerThread(self, loop=self.loop, beacon=self.beacon)

    def _note_commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.app.monitor.on_tp_commit({TP(*tp): offset for tp, offset in offsets.items()})

    @property
    def shortlabel(self) -> str:
        """Name of the consumer in Faust's log lines; it is the name of Faust's own."""
        return "Consumer"

    # For the app and the deriver.

    @property
    def failed_connections(self) -> int:
        """Number of attempts to connect to a broker that failed, or that the broker refused."""
        return self._thread.failed_connections

    @property
    def trouble(self) -> BrokerTrouble | None:
        """Reason why this worker can't read all its partitions; None if nothing is known against it."""
        return self._thread.trouble

    def partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """Return how many partitions topics have, by name; 0 for a topic that isn't there, or isn't known yet."""
        return {topic: self._thread.topic_partitions(topic) or 0 for topic in topics}

    def end_offsets(self) -> dict[TopicPartition, int]:
        """Return the ends of the assigned partitions' logs as of the last fetch; none before the first one."""
        return self._thread.end_offsets()

    def held(self, tp: TopicPartition) -> PartitionBatches | None:
        """Return a partition; None if this worker doesn't hold it."""
        return self.member.assignment.partitions.get(tp)

    async def renew(self, held: Held) -> bool:
        """Commit the state of a partition again; False if this worker doesn't own it any more."""
        return await self.member.commits.renew(held)

    async def close_by_clock(self, tp: TopicPartition, offset: int, hour: int) -> bool:
        """Commit a closing by the clock; see `Commits.close_by_clock`."""
        return await self.member.commits.close_by_clock(tp, offset, hour)

    def forget_closings(self, tp: TopicPartition, before: int) -> None:
        """Leave closings at lower offsets out of the next commit."""
        self.member.commits.forget_closings(tp, before)

    async def name_joint_insert(self, joint_inserts: Mapping[PartitionBatches, JointInsert | None]) -> bool:
        """Commit the joint inserts that partitions have rows in; see `Commits.name_joint_insert`."""
        return await self.member.commits.name_joint_insert(joint_inserts)

    # Fetching.

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:  # noqa: ASYNC109 (Faust's signature)
        """Return micro-batches where Faust expects records."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type] # mode takes any event
        active = self._get_active_partitions()
        delivered = await self.member.fetching.next(_plain(active), timeout)
        if delivered is None:
            return None, None
        return {TP(*tp): records for tp, records in delivered.items()}, active

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        if not isinstance(record, MicroBatch):
            return super()._to_message(tp, record)
        value: Any = record
        message = ConsumerMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=record.last,
            timestamp=record.newest / 1000,
            timestamp_type=0,
            headers=None,
            key=None,
            value=value,
            checksum=None,
            serialized_value_size=record.size,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )
        message.acked = True  # so that Faust doesn't acknowledge it
        self._deliveries.add(record, message)
        return message

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Ignore offsets between two micro-batches, which Faust takes for a gap."""
        if tp.topic not in self._options.policies:
            await super()._add_gap(tp, offset_from, offset_to)

    # Committing.

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit states of micro-batches, and offsets of Faust's own topics."""
        done = await self.member.commits.try_commit()
        return bool(await super().force_commit(topics, start_new_transaction)) or done

    # Rebalancing and stopping.

    async def wait_empty(self) -> None:
        """Wait for the agents' micro-batches, no longer than a rebalance may take; then commit."""
        for batch in await self.member.release.drain(self._deliveries.taken):
            self._deliveries.forget(batch)
        await super().wait_empty()

    def stop_flow(self) -> None:
        """Stop delivery. Faust clears the agents' queues, so that no agent finishes the micro-batches in them."""
        super().stop_flow()
        queues: list[Any] = [topic.queue for topic in self.app.topics]
        self._deliveries.forget_queued([event for queue in queues for event in queue._queue])  # noqa: SLF001 (to look without taking)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Commit, then let the partitions go."""
        drain = super().on_partitions_revoked
        await self.member.revoke(_plain(revoked), lambda: drain(revoked), self.commit)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Fetch nothing before Faust is ready."""
        prepare = super().on_partitions_assigned
        await self.member.assign(lambda: prepare(assigned, generation_id))

    async def perform_seek(self) -> None:
        """Take the assigned partitions over."""
        await self.member.take_over(super().perform_seek)

    async def on_stop(self) -> None:
        """Commit, then let all partitions go."""
        await self.member.stop(super().on_stop)

    @Service.task
    async def _watch_topics(self) -> None:
        while self._options.policies and not self.should_stop:
            await self.sleep(self._options.topic_check_seconds)
            if self.flow_active:
                await self.member.topics.check()


class Transport(driver.Transport):
    """Faust transport, selected by `broker="batch://host:port"`."""

    Consumer = MicroBatchConsumer
    driver_version = f"{driver.Transport.driver_version} (micro-batches)"


def _plain(partitions: set[TP]) -> set[TopicPartition]:
    return {TopicPartition(*tp) for tp in partitions}
