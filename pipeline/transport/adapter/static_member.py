"""Static membership: requests that name the instance, and what a restarted instance gets back from the broker.

aiokafka names the instance when it joins, and not in heartbeats and commits. Without the name, a process whose place
was taken is told no more than that it isn't a member, as after a session timeout. It would join again, and take it
back.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.protocol.api import RequestStruct
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetCommitResponse_v3
from aiokafka.protocol.group import HeartbeatRequest, HeartbeatResponse_v1
from aiokafka.protocol.types import Array, Int32, Int64, Schema, String

from pipeline.transport.adapter.assignor import crowded, known_sizes
from pipeline.transport.adapter.exact import ExactRequest

_TEXT = String("utf-8")
_MEMBER = (("group", _TEXT), ("generation_id", Int32), ("member_id", _TEXT), ("group_instance_id", _TEXT))
_PARTITION = (("partition", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", _TEXT))
_NO_EPOCH = -1
_SUFFIX = len("-01234567-89ab-cdef-0123-456789abcdef")  # Kafka makes a member's id of the instance's and a UUID


class _HeartbeatV3(RequestStruct):
    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = HeartbeatResponse_v1  # version 3 has the same fields
    SCHEMA = Schema(*_MEMBER)


class _CommitV7(RequestStruct):
    API_KEY = 8
    API_VERSION = 7
    RESPONSE_TYPE = OffsetCommitResponse_v3  # version 7 has the same fields
    SCHEMA = Schema(*_MEMBER, ("topics", Array(("topic", _TEXT), ("partitions", Array(*_PARTITION)))))


def naming_instance(request: Any, instance_id: str | None) -> Any:
    """Return a request that names the instance in addition; the same request, if it does so already or need not."""
    if instance_id is None or not isinstance(request, HeartbeatRequest | OffsetCommitRequest):
        return request
    if isinstance(request, HeartbeatRequest):
        member = request._group, request._generation_id, request._member_id  # noqa: SLF001 (aiokafka offers no other way in)
        return ExactRequest(_HeartbeatV3(*member, instance_id))
    member = (request._consumer_group, request._consumer_group_generation_id, request._consumer_id)  # noqa: SLF001 (as above)
    topics = [
        (topic, [(number, offset, _NO_EPOCH, metadata) for number, offset, metadata in partitions])
        for topic, partitions in request._topics  # noqa: SLF001 (as above)
    ]
    return ExactRequest(_CommitV7(*member, instance_id, topics))


def keeps_lead(joined: Any, instance_id: str | None) -> bool:
    """Tell whether the broker's answer to JoinGroup names this instance's earlier process as the leader.

    The broker names it so that the group needs no new assignment. The member leads from then on.
    """
    return (
        instance_id is not None and joined.leader_id != joined.member_id and joined.leader_id[:-_SUFFIX] == instance_id
    )


def take_up_lead(coordinator: Any, synced: Any) -> None:
    """Have the coordinator watch the topics' partitions, as a leader that made the assignment does."""
    sizes = known_sizes(ConsumerProtocol.ASSIGNMENT.decode(synced.member_assignment).user_data)
    coordinator._group_subscription = set(sizes)  # noqa: SLF001 (as above)
    coordinator._metadata_snapshot = sizes  # noqa: SLF001 (as above)


class Misfit(NamedTuple):
    """Topics that don't fit the assignment made for this worker's earlier process."""

    dropped: set[str]
    """Assigned, and not subscribed to; aiokafka would fail."""
    missing: set[str]
    """Subscribed to, and shared without this worker: nobody has them, or another one several partitions of them."""


def misfit(synced: Any, topics: Collection[str]) -> Misfit:
    """Compare an assignment with the topics that this worker subscribes to.

    Kafka gives an instance that comes back its earlier assignment, although its release may have other topics.
    """
    assignment = ConsumerProtocol.ASSIGNMENT.decode(synced.member_assignment)
    assigned = {topic for topic, _ in assignment.assignment}
    unknown = set(topics) - known_sizes(assignment.user_data).keys()
    starved = (set(topics) - assigned) & crowded(assignment.user_data)
    return Misfit(assigned - set(topics), unknown | starved)


def note_assignment(coordinator: Any, synced: Any) -> None:
    """Have the assignor keep an assignment for its next request to join, without having it carried out.

    The next request then differs from the last one. Kafka makes a new assignment only for a request that differs, or
    for a request of the leader.
    """
    assignment = ConsumerProtocol.ASSIGNMENT.decode(synced.member_assignment)
    for assignor in coordinator._assignors:  # noqa: SLF001 (as above)
        assignor.on_assignment(assignment)
