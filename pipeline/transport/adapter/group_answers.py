"""Errors of the group coordinator: one table that says what becomes of each, by code.

aiokafka knows some of them. It stops at any other, and waits for a caller that never asks.
"""

import enum
from collections.abc import Iterator
from typing import Any, NamedTuple

from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import BrokerResponseError, KafkaError
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest

from pipeline.config import env_name

ACLS = "docs/access.md has the ACLs it needs"
_GROUP_ID, _SESSION = (env_name("kafka", "group_id"), env_name("kafka", "session_timeout_seconds"))
_INSTANCE = env_name("kafka", "instance_id")
_ANOTHER_GROUP = f"stop that consumer, or give the worker a group of its own with {_GROUP_ID}"


class Course(enum.Enum):
    """Course of action after an error."""

    KNOWN = "known"  # aiokafka does what is right
    JOIN_ANEW = "join anew"  # the membership is over; aiokafka doesn't know this code of it
    WAIT = "wait"  # it passes when somebody else does something: log a line, and try again
    HALT = "halt"  # only a person can mend it
    UNCLEAR = "unclear"  # log a line and try again, for a limited time


class Answer(NamedTuple):
    """Error of the coordinator: its name in Kafka, what becomes of it, and what a person can do."""

    name: str
    course: Course
    advice: str = ""


ANSWERS = {
    -1: Answer(
        "UNKNOWN_SERVER_ERROR",
        Course.WAIT,
        "the broker's log has the reason; it answers so while a consumer of the new group protocol "
        f"(group.protocol=consumer) is in the group: {_ANOTHER_GROUP}",
    ),
    0: Answer("NONE", Course.KNOWN),
    3: Answer("UNKNOWN_TOPIC_OR_PARTITION", Course.KNOWN),
    7: Answer("REQUEST_TIMED_OUT", Course.WAIT, "the coordinator is slow"),
    12: Answer("OFFSET_METADATA_TOO_LARGE", Course.KNOWN),
    13: Answer("NETWORK_EXCEPTION", Course.WAIT, "the coordinator has lost a connection"),
    14: Answer("COORDINATOR_LOAD_IN_PROGRESS", Course.KNOWN),
    15: Answer("COORDINATOR_NOT_AVAILABLE", Course.KNOWN),
    16: Answer("NOT_COORDINATOR", Course.KNOWN),
    22: Answer("ILLEGAL_GENERATION", Course.KNOWN),
    23: Answer(
        "INCONSISTENT_GROUP_PROTOCOL",
        Course.WAIT,
        f"a consumer with another assignor or another protocol is in it: {_ANOTHER_GROUP}",
    ),
    24: Answer("INVALID_GROUP_ID", Course.HALT, f"give {_GROUP_ID} another value"),
    25: Answer("UNKNOWN_MEMBER_ID", Course.KNOWN),
    26: Answer(
        "INVALID_SESSION_TIMEOUT",
        Course.HALT,
        f"give {_SESSION} a value from the broker's group.min.session.timeout.ms to its group.max.session.timeout.ms",
    ),
    27: Answer("REBALANCE_IN_PROGRESS", Course.KNOWN),
    28: Answer("INVALID_COMMIT_OFFSET_SIZE", Course.KNOWN),
    29: Answer("TOPIC_AUTHORIZATION_FAILED", Course.HALT, ACLS),
    30: Answer("GROUP_AUTHORIZATION_FAILED", Course.HALT, ACLS),
    31: Answer("CLUSTER_AUTHORIZATION_FAILED", Course.HALT, ACLS),
    35: Answer("UNSUPPORTED_VERSION", Course.HALT, "the broker must let the classic group protocol in"),
    42: Answer("INVALID_REQUEST", Course.HALT, "report this"),
    69: Answer("GROUP_ID_NOT_FOUND", Course.JOIN_ANEW),
    79: Answer("MEMBER_ID_REQUIRED", Course.KNOWN),
    81: Answer(
        "GROUP_MAX_SIZE_REACHED",
        Course.WAIT,
        "the group has as many members as the broker's group.max.size allows: stop one, or raise it",
    ),
    82: Answer(
        "FENCED_INSTANCE_ID",
        Course.HALT,
        f"another worker has started under the same {_INSTANCE}: give each worker its own",
    ),
    89: Answer("THROTTLING_QUOTA_EXCEEDED", Course.WAIT, "the broker's quota is used up"),
    110: Answer("FENCED_MEMBER_EPOCH", Course.JOIN_ANEW),
    111: Answer("UNRELEASED_INSTANCE_ID", Course.WAIT, f"another member has the same {_INSTANCE}: give each its own"),
    113: Answer("STALE_MEMBER_EPOCH", Course.JOIN_ANEW),
}
"""Errors by code: JoinGroup, SyncGroup, Heartbeat and OffsetFetch answer with these."""

NEW_PROTOCOL = Answer(
    "an assignment by the broker",
    Course.WAIT,
    f"a consumer of the new group protocol (group.protocol=consumer) is in it: {_ANOTHER_GROUP}",
)
"""The broker takes a worker into a group of the new protocol, and assigns by itself, without the workers' assignor."""

OTHER_TOPICS = Answer("an assignment for other topics", Course.KNOWN)
"""The broker gives a worker with a name the assignment of its earlier process, which had other topics."""

_JOINING = JoinGroupRequest, SyncGroupRequest, HeartbeatRequest


class GroupRefusalError(KafkaError):
    """An error of the coordinator that aiokafka doesn't know, or that nobody but a person can mend.

    Args:
        answer: the error.
    """

    retriable = False

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.name}; {answer.advice}" if answer.advice else answer.name)
        self.answer = answer


def answer_to(request: Any, response: Any) -> Answer | None:
    """Return the error that a response to a request of the group has; None if aiokafka deals with it."""
    if isinstance(request, _JOINING):
        answer = answer_of(response.error_code)
        if isinstance(request, SyncGroupRequest) and response.error_code == 0 and _by_broker(response):
            answer = NEW_PROTOCOL
        return None if answer.course is Course.KNOWN else answer
    if isinstance(request, OffsetFetchRequest | OffsetCommitRequest):
        return next((answer for answer in map(answer_of, _codes(response)) if answer.course is Course.HALT), None)
    return None


def answer_of(code: int) -> Answer:
    """Return the error of a code."""
    return ANSWERS.get(code) or Answer(f"error {code}", Course.UNCLEAR)


def answer_in(error: BaseException) -> Answer:
    """Return the error that aiokafka has raised."""
    if isinstance(error, GroupRefusalError):
        return error.answer
    if isinstance(error, BrokerResponseError):
        answer = answer_of(error.errno)
        return answer._replace(course=Course.UNCLEAR) if answer.course is Course.KNOWN else answer
    return Answer(repr(error), Course.UNCLEAR)


def _codes(response: Any) -> Iterator[int]:
    """Yield the codes of commits, written or read: of the group if there is one, and of each partition."""
    if hasattr(response, "error_code"):
        yield response.error_code
    for _, partitions in response.topics:
        for partition in partitions:
            yield partition[-1]


def _by_broker(response: Any) -> bool:
    """Tell whether the broker has assigned partitions, not a worker: then it isn't followed by Faust's own data."""
    assignment = ConsumerProtocol.ASSIGNMENT.decode(response.member_assignment)
    return not assignment.user_data
