"""Gaps between the offset that is expected and the offset that arrives: shortened logs, and deleted records."""

from pipeline import metrics
from pipeline.errors import HaltError
from pipeline.transport.asking import until_answered
from pipeline.transport.broker import Fetched, TopicPartition
from pipeline.transport.context import Context
from pipeline.transport.partition import PartitionBatches
from pipeline.transport.rebalance import SHORTENED
from pipeline.transport.topics import Topics


class Gaps:
    """Adds fetched records to their partitions, and finds out why records before them are missing.

    Args:
        context: broker, assignment and options.
        topics: tells whether a topic was created anew.
    """

    def __init__(self, context: Context, topics: Topics) -> None:
        self._context = context
        self._assignment = context.assignment
        self._options = context.options
        self._log = context.log
        self._topics = topics

    async def add(self, partition: PartitionBatches, fetched: Fetched, now: float) -> None:
        """Let records of a partition wait for their micro-batch; report records that are missing before the fetch.

        Within a fetch, an offset without a record isn't missing: a marker, an aborted or a compacted record.
        """
        if not partition.live:
            return
        expected, got = partition.next_offset, fetched.first
        if got != expected:
            beginning = await self._beginning(partition)
            if beginning is None or not partition.live:
                return
            if got < expected:
                self._stop_shortened(partition, expected, got)
                return
            if beginning > expected:
                self._report_deleted(partition, expected, min(got, beginning))
        partition.add(fetched.records, now, fetched.next_offset)

    async def _beginning(self, partition: PartitionBatches) -> int | None:
        """Ask for the first offset of the log; None if the partition was let go, or belongs to another topic by now."""
        tp = TopicPartition(partition.topic, partition.partition)

        async def ask() -> int:
            await self._topics.let_go_of_recreated({partition.topic})
            return (await self._context.broker.earliest_offsets([tp]))[tp]

        return await until_answered(ask, lambda: self._context.flow.flow_active and partition.live, self._context)

    def _stop_shortened(self, partition: PartitionBatches, expected: int, got: int) -> None:
        place = f"{partition.topic}-{partition.partition}"
        self._options.stop(
            HaltError(f"{place}: Kafka's log has offset {got} where {expected} was expected, {SHORTENED}")
        )
        self._assignment.let_go({TopicPartition(partition.topic, partition.partition)})

    def _report_deleted(self, partition: PartitionBatches, expected: int, beginning: int) -> None:
        """Report records that retention deleted before they were replayed, or before they were consumed."""
        place, done = f"{partition.topic}-{partition.partition}", partition.state.offset
        if expected < done:
            gone = min(done, beginning)
            if self._options.deriver is not None:
                self._options.deriver.missed(TopicPartition(partition.topic, partition.partition), gone - expected)
            self._log.error("%s: offsets %d to %d were deleted before they were replayed", place, expected, gone - 1)
        if (lost := beginning - max(expected, done)) > 0:
            metrics.RECORDS_LOST.labels(partition.topic).inc(lost)
            self._log.error(
                "%s: %d records are lost: offsets %d to %d were deleted by retention before they were consumed",
                place,
                lost,
                beginning - lost,
                beginning - 1,
            )
