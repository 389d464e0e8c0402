"""The thread that talks to the broker: fetches records as aiokafka's C code reads them, commits as a known member.

What is fetched in the course of a rebalance isn't lost, and what is committed is taken by the broker only as long as it
knows us as the member that read the partition's state: fencing, without which two workers could own a partition.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from inspect import GEN_CREATED, getgeneratorstate
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import (
    CorruptRecordException,
    GroupAuthorizationFailedError,
    IllegalGenerationError,
    KafkaError,
    KafkaTimeoutError,
    RebalanceInProgressError,
    TopicAuthorizationFailedError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from pipeline.errors import HaltError
from pipeline.transport.records import KeptRecords

# aiokafka has one fetch at a time under way to a broker. One for partitions that have nothing new would keep those
# waiting that have, for 1.5 s as Faust has it.
_FETCH_WAIT_MS = 100
_ANSWER_SECONDS = 5.0  # how long an answer is waited for before the caller may think of something else
_RETRY_SECONDS = 0.05
_STOP_SECONDS = 3.0  # how long leaving the group may take

T = TypeVar("T")


class Membership(NamedTuple):
    """As whom we commit: the broker takes no commit of a member that another generation has followed."""

    generation: int
    member_id: str

    @property
    def known(self) -> bool:
        """Whether it is one at all: a commit without is taken from anybody, once the group has no members."""
        return self.generation >= 0


NOBODY = Membership(-1, "")


class _LightRecords:
    """Stands in for aiokafka's records of a fetch: what its C code reads, without a Python object around each record.

    That costs a quarter of the CPU. Offset, timestamp, key, value and headers have the same names either way.
    """

    def __init__(self, theirs: PartitionRecords) -> None:
        self.next_fetch_offset = theirs.next_fetch_offset
        self._records = self._unpack(theirs._records, check_crcs=theirs._check_crcs)  # noqa: SLF001

    def __iter__(self) -> Iterator[Any]:
        return self._records

    def _unpack(self, fetched: KeptRecords, *, check_crcs: bool) -> Iterator[Any]:
        while fetched.has_next():
            batch = fetched.next_batch()
            if check_crcs and not batch.validate_crc():
                raise CorruptRecordException
            if not batch.is_control_batch:
                try:
                    yield from self._not_yet_read(batch)
                except UnicodeDecodeError:
                    yield from self._not_yet_read(fetched.read_leniently())
            self.next_fetch_offset = batch.next_offset

    def _not_yet_read(self, batch: Iterable[Any]) -> Iterator[Any]:
        for record in batch:
            if record.offset >= self.next_fetch_offset:  # a fetch begins with the whole of a compressed batch
                self.next_fetch_offset = record.offset + 1
                yield record


def _untouched(records: PartitionRecords) -> bool:
    return getgeneratorstate(records._records_iterator) == GEN_CREATED  # noqa: SLF001


class BrokerThread(driver.AIOKafkaConsumerThread):
    """The thread that talks to the broker."""

    consumer: Any
    failed_connections = 0
    """How often a broker couldn't be reached, or hasn't let us in: to aiokafka, which tries for ever, it's the same."""

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # noqa: SLF001 (Faust offers no setting)
        client = consumer._client  # noqa: SLF001 (aiokafka only logs that it has no connection)
        client._get_conn = partial(self._connect, client._get_conn)  # noqa: SLF001
        return consumer

    async def _connect(self, connect: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        connection = await connect(*args, **kwargs)
        self.failed_connections += connection is None
        return connection

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 (Faust's signature)
        max_records: int | None = None,
    ) -> Any:
        """Take what has been fetched, or what comes first within the timeout.

        What comes in the course of a rebalance is put back: the consumer would drop it.

        Raises:
            HaltError: we may not read a topic, or not as this group.
        """
        with _allowed():
            return await self._fetch(consumer, active_partitions, timeout, max_records)

    async def _fetch(self, consumer: Any, active_partitions: set[TP], seconds: float | None, limit: int | None) -> Any:
        fetcher = consumer._fetcher  # noqa: SLF001 (aiokafka offers no other way in, nor does Faust take one)
        self._lighten(fetcher)
        records = await super()._fetch_records(consumer, active_partitions, 0, limit)
        if not records and seconds:
            fetched = fetcher._create_fetch_waiter()  # noqa: SLF001
            await asyncio.wait([fetched], timeout=seconds)
            if not fetched.cancel():
                fetched.result()  # raises when the group coordinator has given up
            self._lighten(fetcher)
            records = await super()._fetch_records(consumer, active_partitions, 0, limit)
        if self.consumer.flow_active:
            return records
        for tp, some in records.items():
            consumer.seek(tp, some[0].offset)
        return {}

    def _lighten(self, fetcher: Any) -> None:
        if self.consumer.in_transaction:
            return  # aiokafka leaves out what was aborted
        policies = self.consumer.options.policies
        for tp, fetched in fetcher._records.items():  # noqa: SLF001
            theirs = fetched._partition_records if isinstance(fetched, FetchResult) else None  # noqa: SLF001
            if isinstance(theirs, PartitionRecords) and tp.topic in policies and _untouched(theirs):
                fetched._partition_records = _LightRecords(theirs)  # noqa: SLF001

    @property
    def membership(self) -> Membership:
        """As whom we would commit now; it doesn't change while partitions are being assigned."""
        coordinator = self._coordinator
        return Membership(coordinator.generation, coordinator.member_id)

    @property
    def _coordinator(self) -> Any:
        return self._ensure_consumer()._coordinator  # noqa: SLF001 (the public methods have no metadata, no membership)

    async def rejoin(self) -> None:
        """Have the partitions assigned anew."""

        async def rejoin() -> None:
            self._coordinator.request_rejoin()

        await self.call_thread(rejoin)

    async def notice(self, topics: Iterable[str]) -> None:
        """Have topics assigned that there are; one that was missing for a moment would be left out for minutes."""

        async def notice() -> None:
            client = self._coordinator._client  # noqa: SLF001
            if not all(client.cluster.partitions_for_topic(topic) for topic in topics):
                client.force_metadata_update()

        await self.call_thread(notice)

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """Where the logs begin.

        Raises:
            KafkaError: the broker doesn't answer.
        """
        beginnings: Mapping[TP, int]
        beginnings = await self.call_thread(_in_time, self._ensure_consumer().beginning_offsets, partitions)
        return beginnings

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Where the logs end.

        Raises:
            KafkaError: the broker doesn't answer.
        """
        ends: Mapping[TP, int] = await self.call_thread(_in_time, self._highwaters, partitions)
        return ends

    async def at_the_end(self, tp: TP) -> bool:
        """Whether all of a partition's log has been fetched, up to its end as it is now.

        Raises:
            KafkaError: the broker doesn't answer.
        """
        at_the_end: bool = await self.call_thread(_in_time, self._at_the_end, tp)
        return at_the_end

    async def _at_the_end(self, tp: TP) -> bool:
        consumer = self._ensure_consumer()
        end: int = (await consumer.end_offsets([tp]))[tp]
        # Not the last record: markers of transactions may follow it.
        return tp in consumer.assignment() and end <= await consumer.position(tp)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go where the group has got to, with all partitions.

        Raises:
            KafkaError: the broker doesn't answer.
        """
        committed: Mapping[TP, int]
        committed = await self.call_thread(_in_time, self._ensure_consumer().seek_to_committed)
        return committed

    async def read_commits(self, partitions: Iterable[TP]) -> Mapping[TP, OffsetAndMetadata]:
        """What the group has committed of these.

        Raises:
            KafkaError: the broker doesn't answer.
        """
        asked = [TopicPartition(*tp) for tp in partitions]
        committed = await self.call_thread(_in_time, self._coordinator.fetch_committed_offsets, asked)
        return {TP(*tp): commit for tp, commit in committed.items()}

    async def commit_ranges(self, membership: Membership, commits: Mapping[TP, OffsetAndMetadata]) -> bool:
        """Commit as this member; False when the broker doesn't know it as that any more, and took nothing.

        Raises:
            KafkaError: the broker doesn't answer; whether it took the commit is unknown.
        """
        taken: bool = await self.call_thread(_in_time, self._commit_ranges, membership, commits)
        return taken

    async def _commit_ranges(self, membership: Membership, commits: Mapping[TP, OffsetAndMetadata]) -> bool:
        coordinator = self._coordinator
        offsets = {TopicPartition(*tp): commit for tp, commit in commits.items()}
        while True:
            await coordinator.ensure_coordinator_known()
            async with coordinator._commit_lock:  # noqa: SLF001
                if self.membership != membership or not membership.known:
                    return False
                try:
                    # Awaited as it is, not as a task: so the request is made at once, as the member of the line above.
                    await coordinator._do_commit_offsets(None, offsets)  # noqa: SLF001
                except (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError):
                    return False
                except KafkaError as error:
                    if not error.retriable:
                        raise
                else:
                    self.tp_last_committed_at.update(dict.fromkeys(commits, monotonic()))
                    return True
            await asyncio.sleep(_RETRY_SECONDS)

    async def on_thread_stop(self) -> None:
        """Leave the group; without a word, when the broker is away."""
        # In a task of its own: aiokafka lets the cancellation of its fetches through, and the thread would never end.
        leaving = asyncio.create_task(super().on_thread_stop())
        _, late = await asyncio.wait([leaving], timeout=_STOP_SECONDS)
        if late or leaving.cancelled() or leaving.exception():
            self.log.warning("Kafka doesn't answer: the group isn't told that we leave it")


@contextmanager
def _allowed() -> Iterator[None]:
    """Say that an ACL is missing: asking again won't help."""
    try:
        yield
    except (GroupAuthorizationFailedError, TopicAuthorizationFailedError) as error:
        raise HaltError(
            f"Kafka doesn't let this worker do that: {error}; docs/access.md has the ACLs it needs"
        ) from None


async def _in_time(ask: Callable[..., Awaitable[T]], *args: Any) -> T:
    try:
        with _allowed():
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await ask(*args)
    except TimeoutError:
        raise KafkaTimeoutError(f"no answer in {_ANSWER_SECONDS:.0f} s") from None
