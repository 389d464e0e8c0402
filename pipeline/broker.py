"""The thread that talks to the broker: fetches records as aiokafka's C code reads them, commits as a known member.

What is fetched in the course of a rebalance isn't lost, and what is committed is taken by the broker only as long as it
knows us as the member that read the partition's state: fencing, without which two workers could own a partition.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from inspect import GEN_CREATED, getgeneratorstate
from time import monotonic
from typing import Any, NamedTuple

from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import (
    CorruptRecordException,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

# aiokafka has one fetch at a time under way to a broker. One for partitions that have nothing new would keep those
# waiting that have, for 1.5 s as Faust has it.
_FETCH_WAIT_MS = 100
_COMMIT_SECONDS = 5.0  # how long a commit is tried before its caller may think of something else
_RETRY_SECONDS = 0.05


class Membership(NamedTuple):
    """As whom we commit: the broker takes no commit of a member that another generation has followed."""

    generation: int
    member_id: str


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


class BrokerThread(driver.AIOKafkaConsumerThread):
    """The thread that talks to the broker."""

    consumer: Any

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

    async def read_ranges(self, partitions: Iterable[TP]) -> tuple[Membership, Mapping[TP, OffsetAndMetadata]]:
        """What the group has committed of these, and as whom we know it."""
        result: tuple[Membership, Mapping[TP, OffsetAndMetadata]]
        result = await self.call_thread(self._read_ranges, [TopicPartition(*tp) for tp in partitions])
        return result

    async def _read_ranges(self, partitions: list[TopicPartition]) -> Any:
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001 (the public `committed` has no metadata)
        membership = Membership(coordinator.generation, coordinator.member_id)
        committed = await coordinator.fetch_committed_offsets(partitions)
        return membership, {TP(*tp): commit for tp, commit in committed.items()}

    async def commit_ranges(self, membership: Membership, commits: Mapping[TP, OffsetAndMetadata]) -> bool:
        """Commit as this member; False when the broker doesn't know it as that any more, and took nothing.

        Raises:
            KafkaError: the broker doesn't answer; whether it took the commit is unknown.
        """
        taken: bool = await self.call_thread(self._commit_ranges, membership, commits)
        return taken

    async def _commit_ranges(self, membership: Membership, commits: Mapping[TP, OffsetAndMetadata]) -> bool:
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001 (`commit` would go by today's membership)
        offsets = {TopicPartition(*tp): commit for tp, commit in commits.items()}
        deadline = monotonic() + _COMMIT_SECONDS
        while True:
            await coordinator.ensure_coordinator_known()
            async with coordinator._commit_lock:  # noqa: SLF001
                # Nothing is awaited between this and the making of the request, so that it goes out as this member.
                if Membership(coordinator.generation, coordinator.member_id) != membership:
                    return False
                try:
                    await asyncio.shield(coordinator._do_commit_offsets(None, offsets))  # noqa: SLF001
                except (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError):
                    return False
                except KafkaError as error:
                    if not error.retriable or monotonic() > deadline:
                        raise
                else:
                    self.tp_last_committed_at.update(dict.fromkeys(commits, monotonic()))
                    return True
            await asyncio.sleep(_RETRY_SECONDS)
