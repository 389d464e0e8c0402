"""The transport's `Broker`, by aiokafka: its requests run in Faust's thread, and commits are fenced by the membership.

Fencing means that the broker takes a commit only from a member that it knows. Without it, two workers could own a
partition.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from copy import copy
from time import monotonic
from typing import Any

from aiokafka.consumer.fetcher import READ_UNCOMMITTED
from aiokafka.errors import IllegalGenerationError, KafkaError, RebalanceInProgressError, UnknownMemberIdError
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as Place
from faust.types import TP

from pipeline.errors import UnavailableError
from pipeline.transport.adapter.thread import BrokerThread
from pipeline.transport.adapter.topic_ids import topic_ids
from pipeline.transport.broker import Commit, Fetched, Membership, TopicPartition

_NO_PARTITION = TP("", -1)  # polling for this fetches nothing, and keeps the consumer in its group
_RETRY_SECONDS = 0.05


class ThreadBroker:
    """Requests of one consumer; see `pipeline.transport.broker.Broker`.

    Args:
        thread: thread that runs aiokafka's consumer.
    """

    def __init__(self, thread: BrokerThread) -> None:
        self._thread = thread

    @property
    def membership(self) -> Membership:
        """Current membership of the group."""
        return self._thread.membership

    def assigned(self) -> set[TopicPartition]:
        """Return all assigned partitions."""
        return {TopicPartition(*tp) for tp in self._thread.assignment()}

    async def topic_ids(self, topics: Iterable[str]) -> Mapping[str, str]:
        """Return the ids of the topics that exist."""
        if look_up := self._thread.options.topic_ids:
            return await asyncio.to_thread(look_up, topics)
        client: Any = self._thread.client._client  # noqa: SLF001 (the consumer has no public method for this)
        ids: Mapping[str, str] = await self._thread.ask(topic_ids, client, self._thread.coordinator, list(topics))
        return ids

    async def rejoin(self) -> None:
        """Request a new assignment."""

        async def rejoin() -> None:
            self._thread.coordinator.request_rejoin()

        await self._thread.call_thread(rejoin)

    async def notice(self, topics: Iterable[str]) -> None:
        """Refresh metadata that lacks one of the topics; aiokafka itself would wait for minutes."""

        async def notice() -> None:
            client = self._thread.client._client  # noqa: SLF001 (the consumer has no public method for this)
            if not all(client.cluster.partitions_for_topic(topic) for topic in topics):
                client.force_metadata_update()

        await self._thread.call_thread(notice)

    async def earliest_offsets(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the first offset of each log."""
        return await self._offsets(self._thread.client.beginning_offsets, _places(partitions))

    async def highwaters(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the end of each log, open transactions included."""
        return await self._offsets(self._ends, _places(partitions))

    async def _ends(self, places: list[Any]) -> Mapping[Any, int]:
        client = self._thread.client
        # A consumer of committed records is told the last stable offset, where the first open transaction begins.
        fetcher = copy(client._fetcher)  # noqa: SLF001 (aiokafka has one isolation level for all requests of a consumer)
        fetcher._isolation_level = READ_UNCOMMITTED  # noqa: SLF001 (as above)
        ends: Mapping[Any, int] = await fetcher.end_offsets(places, None)  # `ask` limits the time
        return ends

    async def _offsets(
        self, request: Callable[..., Awaitable[Any]], places: Sequence[Any]
    ) -> Mapping[TopicPartition, int]:
        offsets = _plain(await self._thread.ask(request, places))
        # aiokafka leaves a partition out whose answer it can't read.
        if unknown := sorted(place for place in places if offsets.get(place, -1) < 0):
            raise UnavailableError(f"Kafka doesn't tell the offsets of {unknown[0].topic}-{unknown[0].partition}")
        return offsets

    async def at_the_end(self, tp: TopicPartition) -> bool:
        """Tell whether the position is at the current end of the log."""
        at_the_end: bool = await self._thread.ask(self._at_the_end, Place(*tp))
        return at_the_end

    async def _at_the_end(self, place: Any) -> bool:
        client = self._thread.client
        end = (await self._ends([place]))[place]
        at_the_end: bool = place in client.assignment() and end <= await client.position(place)
        return at_the_end

    async def read_commits(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, Commit]:
        """Return the group's commits."""
        commits = await self._thread.ask(self._thread.coordinator.fetch_commits, _places(partitions))
        return {TopicPartition(*place): Commit(*commit) for place, commit in commits.items()}

    async def commit(self, membership: Membership, commits: Mapping[TopicPartition, Commit]) -> bool:
        """Commit as this member; False if the broker refuses."""
        taken: bool = await self._thread.ask(self._commit, membership, commits)
        return taken

    async def _commit(self, membership: Membership, commits: Mapping[TopicPartition, Commit]) -> bool:
        coordinator = self._thread.coordinator
        offsets = {Place(*tp): OffsetAndMetadata(*commit) for tp, commit in commits.items()}
        while True:
            await coordinator.ensure_coordinator_known()
            async with coordinator._commit_lock:  # noqa: SLF001 (aiokafka's own commits take it too)
                if self.membership != membership or not membership.known:
                    return False
                try:
                    # Awaited directly, not as a task: so the request is made at once, with the checked membership.
                    await coordinator._do_commit_offsets(None, offsets)  # noqa: SLF001 (the public one repeats it as another member)
                except (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError):
                    return False
                except KafkaError as error:
                    if not error.retriable:
                        raise
                else:
                    now = monotonic()
                    self._thread.tp_last_committed_at.update({TP(*tp): now for tp in commits})
                    return True
            await asyncio.sleep(_RETRY_SECONDS)

    async def seek(self, tp: TopicPartition, offset: int) -> None:
        """Fetch a partition from this offset on.

        Raises:
            UnavailableError: the partition has been assigned to another member meanwhile.
        """
        consumer, theirs = self._thread.consumer, TP(*tp)
        try:
            await consumer.seek(theirs, offset)
        except KafkaError as error:
            raise UnavailableError(repr(error)) from error
        # Faust drops records below its read offset. The log may end below it.
        consumer._read_offset[theirs] = None  # noqa: SLF001 (Faust has no public way)

    async def fetch(self, partitions: AbstractSet[TopicPartition], seconds: float) -> Mapping[TopicPartition, Fetched]:
        """Return what is fetched, or what arrives first in time."""
        fetched: Mapping[TP, Any] = await self._thread.getmany(
            {TP(*tp) for tp in partitions} or {_NO_PARTITION}, seconds
        )
        return {TopicPartition(*tp): stretch for tp, stretch in fetched.items()}


def _places(partitions: Iterable[TopicPartition]) -> list[Any]:
    return [Place(*tp) for tp in partitions]


def _plain(offsets: Mapping[Any, int]) -> dict[TopicPartition, int]:
    return {TopicPartition(*place): offset for place, offset in offsets.items()}
