"""Errors in the coordinator's answers that aiokafka overlooks, and refusals that another attempt won't change.

aiokafka asks for commits with OffsetFetch up to version 3. There, an error of the whole group stands in a field of its
own, at which aiokafka doesn't look: the empty list of partitions would pass for a group without commits, and the worker
would store the whole log again. It also takes an unknown topic for a topic without commits. If the answer leaves a
partition out, it takes the partition for one without a commit, or, in the answer to a commit, for a committed one.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from aiokafka.errors import (
    BrokerResponseError,
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    IllegalGenerationError,
    InvalidCommitOffsetSizeError,
    KafkaError,
    NotCoordinatorForGroupError,
    OffsetMetadataTooLargeError,
    RebalanceInProgressError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.structs import TopicPartition as Place

from pipeline.errors import HaltError
from pipeline.transport.adapter.group_answers import ANSWERS, Course

_MOVED = {each.errno for each in (NotCoordinatorForGroupError, GroupCoordinatorNotAvailableError, RequestTimedOutError)}
_FENCED = {each.errno for each in (IllegalGenerationError, UnknownMemberIdError, RebalanceInProgressError)}
_FORBIDDEN = {each.errno for each in (GroupAuthorizationFailedError, TopicAuthorizationFailedError)}
_NAMES_UNKNOWN_TO_AIOKAFKA = {
    74: "FENCED_LEADER_EPOCH",
    75: "UNKNOWN_LEADER_EPOCH",
    78: "OFFSET_NOT_AVAILABLE",
    81: "GROUP_MAX_SIZE_REACHED",
    82: "FENCED_INSTANCE_ID",
    88: "UNSTABLE_OFFSET_COMMIT",
    100: "UNKNOWN_TOPIC_ID",
    110: "FENCED_MEMBER_EPOCH",
    113: "STALE_MEMBER_EPOCH",
}
# Besides those that aiokafka itself calls retriable, and those that joining waits for: BROKER_NOT_AVAILABLE,
# REPLICA_NOT_AVAILABLE, and codes that aiokafka doesn't know.
_PASSING = {8, 9, 74, 75, 78, 88, 100, 110, 113} | {
    code for code, each in ANSWERS.items() if each.course is Course.WAIT
}
_ADVICE = {
    OffsetMetadataTooLargeError.errno: (
        "; the worker writes the ranges in flight beside each offset: set offset.metadata.max.bytes of the brokers to "
        "4096 or more, which is Kafka's default"
    ),
    InvalidCommitOffsetSizeError.errno: (
        "; all commits of a request are one batch: set max.message.bytes of the topic __consumer_offsets to 1 MiB or "
        "more, which is Kafka's default"
    ),
    82: "; another worker has the same instance id: give each worker its own",
}

Errors = Mapping[Place, int]


class OverlookedError(KafkaError):
    """An answer with an error that passes, which aiokafka would take for an answer without one."""

    retriable = True


class MovedError(OverlookedError):
    """An answer of a broker that isn't the group's coordinator, or not yet."""


def check_fetched(group: str, asked: Iterable[Place], answer: Any) -> None:
    """Check that an answer to OffsetFetch tells the commit of each partition that was asked for.

    Args:
        group: the consumer group.
        asked: partitions in the request.
        answer: aiokafka's response, of version 1 to 3.

    Raises:
        MovedError: the coordinator has to be found anew.
        OverlookedError: another attempt may succeed.
        KafkaError: an ACL is missing.
        HaltError: another attempt won't help.
    """
    of_group = getattr(answer, "error_code", 0)  # version 1 has no such field
    if of_group:
        _refuse(group, {}, of_group)
        _try_again(group, of_group)
    errors = {
        Place(topic, partition): code
        for topic, partitions in answer.topics
        for partition, _offset, _metadata, code in partitions
    }
    for place, code in errors.items():
        if code:
            _refuse(group, errors, code)
            _try_again(f"{group}, {place.topic}-{place.partition}", code)
    _check_all_answered(asked, errors)


def check_committed(group: str, asked: Iterable[Place], answer: Any) -> None:
    """Check that an answer to OffsetCommit doesn't refuse for good, and names each partition.

    aiokafka looks at the other errors.

    Args:
        group: the consumer group.
        asked: partitions in the request.
        answer: aiokafka's response.

    Raises:
        OverlookedError: a partition is missing in the answer.
        KafkaError: an ACL is missing.
        HaltError: another attempt won't help.
    """
    errors = {Place(topic, partition): code for topic, partitions in answer.topics for partition, code in partitions}
    for code in sorted(set(errors.values()) - {0} - _FENCED):
        _refuse(group, errors, code)
    _check_all_answered(asked, errors)


def _check_all_answered(asked: Iterable[Place], errors: Errors) -> None:
    if missing := sorted(set(asked) - errors.keys()):
        raise OverlookedError(f"no answer about {_listed(missing)}")


def _refuse(group: str, errors: Errors, code: int) -> None:
    """Raise for a code that another attempt won't change."""
    places = [place for place, found in errors.items() if found == code]
    if code == GroupAuthorizationFailedError.errno:
        raise GroupAuthorizationFailedError(group)
    if code == TopicAuthorizationFailedError.errno:
        raise TopicAuthorizationFailedError({place.topic for place in places})
    if code in _MOVED | _FENCED | _PASSING or for_code(code).retriable:
        return
    where = f", {_listed(sorted(places))}" if places else ""
    raise HaltError(f"group {group}{where}: Kafka refuses for good: {_named(code)}{_ADVICE.get(code, '')}")


def _try_again(where: str, code: int) -> NoReturn:
    raise (MovedError if code in _MOVED else OverlookedError)(f"group {where}: {_named(code)}")


def _listed(places: Iterable[Place]) -> str:
    return ", ".join(f"{place.topic}-{place.partition}" for place in places)


def _named(code: int) -> str:
    known: type[BrokerResponseError] = for_code(code)
    name = known.message if known.errno == code else _NAMES_UNKNOWN_TO_AIOKAFKA.get(code, "unknown error")
    return f"{name} (code {code})"
