"""aiokafka's group coordinator, whose answers are checked for errors that aiokafka overlooks.

Every request of the worker for commits goes through it: the transport's own, Faust's seek to the committed offsets, and
aiokafka's, which moves a partition without a commit to the beginning of its log.
"""

from collections.abc import Iterable
from typing import Any

from aiokafka.client import CoordinationType
from aiokafka.consumer import consumer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.structs import TopicPartition as Place

from pipeline.transport.adapter.answers import MovedError, check_committed, check_fetched
from pipeline.transport.adapter.exact import ExactRequest


class CheckedCoordinator(GroupCoordinator):
    """Replacement for aiokafka's coordinator."""

    async def _send_req(self, request: Any) -> Any:
        answer = await super()._send_req(request)
        try:
            self._check(request, answer)
        except MovedError:
            self.coordinator_dead()  # the next attempt finds the coordinator anew
            raise
        return answer

    def _check(self, request: Any, answer: Any) -> None:
        if isinstance(request, OffsetFetchRequest):
            asked = [Place(topic, number) for topic, numbers in request._partitions or () for number in numbers]  # noqa: SLF001 (a request has no public fields)
            check_fetched(self.group_id, asked, answer)
        elif (topics := _committed_topics(request)) is not None:
            asked = [Place(topic, number) for topic, offsets in topics for number, *_ in offsets]
            check_committed(self.group_id, asked, answer)

    async def fetch_commits(self, partitions: Iterable[Any]) -> Any:
        """Return the group's commits by partition, asked twice if one is missing.

        The second time, the coordinator is looked up anew. So no partition counts as one without a commit because of
        one broker's single answer.

        Raises:
            KafkaError: no coordinator is found, or it refuses.
            HaltError: another attempt won't help.
        """
        partitions = list(partitions)
        commits = await self.fetch_committed_offsets(partitions)
        if commits.keys() >= set(partitions):
            return commits
        if await self._client.coordinator_lookup(CoordinationType.GROUP, self.group_id) != self.coordinator_id:
            self.coordinator_dead()
        return await self.fetch_committed_offsets(partitions)


def _committed_topics(request: Any) -> Any:
    """Return the topics of a commit with their partitions; None for any other request."""
    if isinstance(request, OffsetCommitRequest):
        return request._topics  # noqa: SLF001 (a request has no public fields)
    if isinstance(request, ExactRequest) and request.struct.API_KEY == OffsetCommitRequest.API_KEY:
        return request.struct.topics
    return None


consumer.GroupCoordinator = CheckedCoordinator  # the consumer takes no other class
