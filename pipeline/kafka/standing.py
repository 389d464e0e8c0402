"""Standing of a consumer group: its members, its committed offsets, and beginning and end of each partition.

The requests are batched: two for the group, one for its commits, two for the offsets of all partitions of a broker.
Nothing is written, and no group is joined.
"""

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.config import KafkaSettings
from pipeline.errors import UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import NO_TOPIC, NOT_NOW, explain_kafka
from pipeline.kafka.member_data import assigned, web_port

_PROBE_SECONDS = 2.0
_PAUSE_SECONDS = 0.2
_LEADERLESS = NO_TOPIC | {KafkaError.LEADER_NOT_AVAILABLE}
_SILENT = frozenset(  # what a request says if one leader doesn't answer
    {KafkaError.LEADER_NOT_AVAILABLE, KafkaError._TIMED_OUT, KafkaError._TRANSPORT}  # noqa: SLF001 (public all the same)
)
# A broker that goes away ends the requests under way, also those that another one can answer.
_AGAIN = NOT_NOW | {KafkaError._TRANSPORT}  # noqa: SLF001


class LogPlace(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the group, and the partitions that the group has given to it."""

    id: str
    client: str
    host: str
    """Address from which it has come, as the broker sees it."""
    places: frozenset[LogPlace]
    web_port: int | None = None
    """Port of its web server; None if it isn't a worker, and while it joins."""


@dataclass(frozen=True, slots=True)
class Standing:
    """State of the group and of the topics at one time."""

    state: str
    """State of the group in Kafka's words, in lower case: stable, empty, missing, preparing_rebalance, …"""
    members: tuple[Member, ...]
    begins: Mapping[LogPlace, int]
    """Offset of the first record of each partition; a leaderless one is missing."""
    ends: Mapping[LogPlace, int]
    """Offset behind the last record, likewise."""
    commits: Mapping[LogPlace, int]
    """Committed offsets; a partition without a commit is missing."""
    missing: frozenset[str]
    """Topics that Kafka doesn't have."""
    leaderless: frozenset[LogPlace]
    """Partitions that no broker leads, or whose leader doesn't answer."""


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
        self._clients: tuple[Consumer, AdminClient] | None = None
        self._leaders: dict[LogPlace, int] = {}
        self._leaderless: frozenset[LogPlace] = frozenset()
        self._missing: frozenset[str] = frozenset()

    def look(self, *, anew: bool) -> Standing:
        """Ask for the standing.

        Args:
            anew: ask for the topics' partitions again; otherwise those of the last look are taken, if all had leaders.

        Raises:
            UnavailableError: the broker doesn't answer in time.
            HaltError: the broker refuses; the message says which right is missing.
        """
        deadline = time.monotonic() + self._answer_seconds
        while True:
            try:
                consumer, admin = self._clients = self._clients or self._connected()
                if not self._leaders:  # a failed look: the admin asks all brokers it knows for groups, also gone ones
                    admin.list_topics(timeout=self._answer_seconds)
                if anew or self._leaderless or not self._leaders:
                    self._find_leaders(consumer)
                return self._ask(consumer, admin)
            except KafkaException as error:
                self._leaders = {}
                failure = error.args[0]
                if failure.code() not in _AGAIN or time.monotonic() > deadline:
                    what = f"group {self._settings.group_id} or its topics"
                    raise explain_kafka(failure, self._settings, what, probe_seconds=_PROBE_SECONDS) from None
            time.sleep(_PAUSE_SECONDS)

    def _connected(self) -> tuple[Consumer, AdminClient]:
        """Make clients. The admin's later requests, with futures, end the process at some answers: decision 90."""
        config: dict[str, Any] = {**client_config(self._settings), "log_level": 0}
        group = {"group.id": self._settings.group_id, "enable.auto.commit": False}
        return Consumer({**config, **group}), AdminClient(config)

    def _find_leaders(self, client: Consumer) -> None:
        found = client.list_topics(timeout=self._answer_seconds)
        if not found.brokers:
            raise UnavailableError(f"Kafka at {self._settings.bootstrap_servers} is not available: no broker is alive")
        there = {name: found.topics[name] for name in self._topics if name in found.topics}
        self._missing = frozenset(self._topics) - there.keys()
        self._leaders = {
            LogPlace(name, number): topic.partitions[number].leader
            for name, topic in there.items()
            for number in sorted(topic.partitions)
        }
        self._leaderless = frozenset(place for place, leader in self._leaders.items() if leader not in found.brokers)

    def _ask(self, client: Consumer, admin: AdminClient) -> Standing:
        asked, group = [TopicPartition(*place) for place in self._leaders], self._settings.group_id
        commits = client.committed(asked, self._answer_seconds) if asked else []
        found = admin.list_groups(group, timeout=self._answer_seconds)
        described = next((each for each in found if each.id == group), None)
        begins, ends = self._begins_and_ends(client)
        return Standing(
            state=_snake(str(described.state)) if described else "missing",
            members=tuple(map(_member, described.members)) if described else (),
            begins=begins,
            ends=ends,
            commits={place: offset for place, offset in _answers(commits) if offset >= 0},
            missing=self._missing,
            leaderless=self._leaderless,
        )

    def _begins_and_ends(self, client: Consumer) -> tuple[dict[LogPlace, int], dict[LogPlace, int]]:
        """Ask all leaders at once; if one doesn't answer, which fails them all, ask each by itself."""
        try:
            return self._ends_of(client, self._led(self._leaders.values()))
        except KafkaException as error:
            if (failure := error).args[0].code() not in _SILENT:
                raise
        self._find_leaders(client)  # the coordinator has just answered, so Kafka is there
        begins, ends = dict[LogPlace, int](), dict[LogPlace, int]()
        for leader in {self._leaders[place] for place in self._led(self._leaders.values())}:
            try:
                its_begins, its_ends = self._ends_of(client, self._led([leader]))
            except KafkaException as error:
                if (failure := error).args[0].code() not in _SILENT:
                    raise
                self._leaderless |= frozenset(self._led([leader]))
            else:
                begins, ends = begins | its_begins, ends | its_ends
        if not ends:
            raise failure
        return begins, ends

    def _led(self, leaders: Collection[int]) -> list[LogPlace]:
        """Return the partitions of these leaders, but for leaderless ones."""
        return [place for place, by in self._leaders.items() if by in leaders and place not in self._leaderless]

    def _ends_of(self, client: Consumer, places: list[LogPlace]) -> tuple[dict[LogPlace, int], dict[LogPlace, int]]:
        return self._offsets(client, places, OFFSET_BEGINNING), self._offsets(client, places, OFFSET_END)

    def _offsets(self, client: Consumer, places: Iterable[LogPlace], which: int) -> dict[LogPlace, int]:
        """Return the beginnings or the ends of partitions; Kafka takes them for times."""
        asked = [TopicPartition(*place, which) for place in places]
        found = client.offsets_for_times(asked, self._answer_seconds) if asked else []
        return {place: offset for place, offset in _answers(found) if offset >= 0}


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

    def read(self, places: Mapping[LogPlace, int]) -> dict[LogPlace, int]:
        """Return the timestamp, in ms, of the first record at or after each offset; without an answer, none."""
        times: dict[LogPlace, int] = {}
        if not places:
            return times
        consumer = self._consumer = self._consumer or Consumer(self._options())
        deadline = time.monotonic() + self._answer_seconds
        consumer.assign([TopicPartition(*place, offset) for place, offset in places.items()])
        try:
            while len(times) < len(places) and (left := deadline - time.monotonic()) > 0:
                for message in consumer.consume(1, left):
                    place = LogPlace(message.topic() or "", message.partition() or 0)
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
    places = frozenset(LogPlace(*place) for place in assigned(described.assignment)) if described.assignment else ()
    host = described.client_host.lstrip("/")
    return Member(described.id, described.client_id, host, frozenset(places), web_port(described.metadata or b""))


def _answers(found: Iterable[TopicPartition]) -> Iterator[tuple[LogPlace, int]]:
    """Yield the offsets; raise a failure, but for a partition without a leader, which has none."""
    for each in found:
        if each.error is None:
            yield LogPlace(each.topic, each.partition), each.offset
        elif each.error.code() not in _LEADERLESS:
            raise KafkaException(each.error)


def _snake(words: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", words).lower()
