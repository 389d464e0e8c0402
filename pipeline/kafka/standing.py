"""Standing of a consumer group: its members, its committed offsets, and beginning and end of each partition.

The requests are batched: one for the group, one for its commits, two for the offsets of all partitions of a broker.
They run at the same time, so a look takes no longer than the slowest one. Nothing is written, and no group is joined.
"""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTimeError
from dataclasses import dataclass
from typing import Any, NamedTuple

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipeline.config import KafkaSettings
from pipeline.errors import UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import NO_TOPIC, NOT_NOW, explain_kafka

_PROBE_SECONDS = 2.0
_PAUSE_SECONDS = 0.2
_MARGIN_SECONDS = 0.5  # after the client's own timeout
_NOT_THERE = NO_TOPIC | {KafkaError._NOENT}  # noqa: SLF001 (librdkafka's codes are public under names with an underscore)


class Place(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the group, and the partitions that the group has given to it."""

    id: str
    client: str
    host: str
    places: frozenset[Place]


@dataclass(frozen=True, slots=True)
class Standing:
    """State of the group and of the topics at one time."""

    state: str
    """State of the group in Kafka's words, in lower case: stable, empty, dead, preparing_rebalancing, …"""
    members: tuple[Member, ...]
    begins: Mapping[Place, int]
    """Offset of the first record of each partition; a partition without a leader is missing."""
    ends: Mapping[Place, int]
    """Offset behind the last record, likewise."""
    commits: Mapping[Place, int]
    """Committed offsets; a partition without a commit is missing."""
    missing: frozenset[str]
    """Topics that Kafka doesn't have."""


class GroupObserver:
    """Looks at a consumer group and at topics. A failure leaves it usable: the next look asks anew.

    Args:
        settings: the broker and the group.
        topics: names.
        answer_seconds: longest wait for an answer.
    """

    def __init__(self, settings: KafkaSettings, topics: Iterable[str], *, answer_seconds: float) -> None:
        self._settings = settings
        self._topics = tuple(topics)
        self._answer_seconds = answer_seconds
        self._client: AdminClient | None = None
        self._places: tuple[Place, ...] = ()
        self._missing: frozenset[str] = frozenset()

    def look(self, *, anew: bool) -> Standing:
        """Ask for the standing.

        Args:
            anew: ask for the topics' partitions again; otherwise those of the last look are taken.

        Raises:
            UnavailableError: the broker doesn't answer in time.
            HaltError: the broker refuses; the message says which right is missing.
        """
        deadline = time.monotonic() + self._answer_seconds
        while True:
            try:
                if self._client is None:
                    self._client = AdminClient({**client_config(self._settings), "log_level": 0})
                if anew or not self._places:
                    self._find_places(self._client)
                return self._ask(self._client)
            except (KafkaException, NotInTimeError) as error:
                self._client, self._places = None, ()  # an old client remembers what it missed
                failure = error.args[0] if isinstance(error, KafkaException) else KafkaError(KafkaError._TIMED_OUT)  # noqa: SLF001
                if failure.code() not in NOT_NOW or time.monotonic() > deadline:
                    what = f"group {self._settings.group_id} or its topics"
                    raise explain_kafka(failure, self._settings, what, probe_seconds=_PROBE_SECONDS) from None
            time.sleep(_PAUSE_SECONDS)

    def _find_places(self, client: AdminClient) -> None:
        """Find the topics' partitions. See `pipeline.kafka.failures` for why topics aren't described."""
        found = client.list_topics(timeout=self._answer_seconds)
        if not found.brokers:
            raise UnavailableError(f"Kafka at {self._settings.bootstrap_servers} is not available: no broker is alive")
        there = {name: found.topics[name] for name in self._topics if name in found.topics}
        self._missing = frozenset(self._topics) - there.keys()
        self._places = tuple(
            Place(name, number) for name, topic in there.items() for number in sorted(topic.partitions)
        )

    def _ask(self, client: AdminClient) -> Standing:
        asked = [TopicPartition(*place) for place in self._places]
        wait = {"request_timeout": self._answer_seconds}
        first: Any = OffsetSpec.earliest()  # type: ignore[no-untyped-call] # confluent-kafka declares no types here
        last: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        group, until = self._settings.group_id, time.monotonic() + self._answer_seconds + _MARGIN_SECONDS
        described = client.describe_consumer_groups([group], **wait)[group]
        committed = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], **wait)[group]
        begins = client.list_offsets(dict.fromkeys(asked, first), **wait) if asked else {}
        ends = client.list_offsets(dict.fromkeys(asked, last), **wait) if asked else {}
        found = _result(described, until)
        commits = _result(committed, until).topic_partitions
        return Standing(
            state=found.state.name.lower(),
            members=tuple(_member(each) for each in found.members),
            begins=_offsets(begins, until),
            ends=_offsets(ends, until),
            commits={Place(each.topic, each.partition): each.offset for each in commits if each.offset >= 0},
            missing=self._missing,
        )


class RecordTimes:
    """Timestamps of records at given offsets, read without a group; few at a time.

    Args:
        settings: the broker.
        answer_seconds: longest wait for the records.
    """

    def __init__(self, settings: KafkaSettings, *, answer_seconds: float) -> None:
        self._settings = settings
        self._answer_seconds = answer_seconds
        self._consumer: Consumer | None = None

    def read(self, places: Mapping[Place, int]) -> dict[Place, int]:
        """Return the timestamp, in ms, of the first record at or after each offset; without an answer, none."""
        times: dict[Place, int] = {}
        if not places:
            return times
        consumer = self._consumer = self._consumer or Consumer(self._options())
        deadline = time.monotonic() + self._answer_seconds
        consumer.assign([TopicPartition(*place, offset) for place, offset in places.items()])
        try:
            while len(times) < len(places) and (left := deadline - time.monotonic()) > 0:
                for message in consumer.consume(1, left):
                    place = Place(message.topic() or "", message.partition() or 0)
                    if message.error() is None and place in places and place not in times:
                        times[place] = message.timestamp()[1]
                        consumer.incremental_unassign([TopicPartition(*place)])
        finally:
            consumer.unassign()
        return times

    def _options(self) -> dict[str, Any]:
        return {
            **client_config(self._settings),
            "group.id": self._settings.group_id,  # the client needs one; it neither joins nor commits
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_uncommitted",
            "fetch.message.max.bytes": 65_536,  # one record is wanted; the broker sends a whole batch all the same
            "queued.min.messages": 1,
            "queued.max.messages.kbytes": 1024,
            "log_level": 0,
        }


def _member(described: Any) -> Member:
    assigned = described.assignment.topic_partitions if described.assignment else ()
    places = frozenset(Place(each.topic, each.partition) for each in assigned)
    return Member(described.member_id, described.client_id, described.host.lstrip("/"), places)


def _offsets(asked: Mapping[TopicPartition, Future[Any]], until: float) -> dict[Place, int]:
    """Return the offsets of the partitions that have a leader."""
    offsets = {}
    for partition, future in asked.items():
        try:
            offsets[Place(partition.topic, partition.partition)] = _result(future, until).offset
        except KafkaException as error:
            if error.args[0].code() not in _NOT_THERE and error.args[0].code() != KafkaError.LEADER_NOT_AVAILABLE:
                raise
    return offsets


def _result(future: Future[Any], until: float) -> Any:
    return future.result(max(0.0, until - time.monotonic()))
