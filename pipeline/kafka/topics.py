"""Topics: the plan of changes from the cluster to topics.yaml, and the requests that make them."""

import enum
from collections.abc import Callable, Container, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
    TopicDescription,
)

from pipeline.catalog import TopicSpec
from pipeline.config import KafkaSettings
from pipeline.errors import ConfigError, HaltError, UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import check_connection, explain_kafka, missing_topic
from pipeline.kafka.leaders import wait_for_leaders

_CHANGE_SECONDS = 30.0
_NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION})  # the latter: an invalid name


@dataclass(frozen=True, slots=True)
class LiveTopic:
    """A topic in the cluster; `config` holds all values in force, set on the topic or not."""

    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Cluster:
    """State of the cluster: number of brokers, and topics by name."""

    brokers: int
    topics: Mapping[str, LiveTopic]


class Action(enum.StrEnum):
    """Kind of a change to a topic."""

    CREATE = "+"
    ALTER = "~"
    KEEP = "="


@dataclass(frozen=True, slots=True)
class Setting:
    """One property of a topic: its value in the cluster, None if the topic is missing, and its declared value."""

    name: str
    old: str | None
    new: str


@dataclass(frozen=True, slots=True)
class Change:
    """Change to one declared topic: all properties of a new topic, otherwise the properties that differ."""

    topic: TopicSpec
    action: Action
    settings: tuple[Setting, ...]

    @property
    def grows(self) -> bool:
        """True if an existing topic gets more partitions; records of a key may then go to another one."""
        return self.action is Action.ALTER and any(setting.name == "partitions" for setting in self.settings)

    @property
    def config(self) -> dict[str, str]:
        """Settings that belong to the broker's configuration of the topic."""
        return {setting.name: setting.new for setting in self.settings if setting.name in self.topic.config}


def plan(topics: Iterable[TopicSpec], cluster: Cluster, file: Path) -> tuple[Change, ...]:
    """Plan the changes that make the cluster's topics match their declarations; other topics are left alone.

    Args:
        topics: declarations.
        cluster: current state.
        file: file of the declarations, for messages.

    Raises:
        ConfigError: Kafka can't do it: fewer partitions, another replication factor, more replicas than brokers.
    """
    return tuple(_change(topic, cluster, f"{file}: topics.{topic.name}") for topic in topics)


def _change(topic: TopicSpec, cluster: Cluster, where: str) -> Change:
    wanted = {"partitions": str(topic.partitions), "replication": str(topic.replication), **topic.config}
    live = cluster.topics.get(topic.name)
    if live is None:
        if topic.replication > cluster.brokers:
            raise ConfigError(
                f"{where}.replication: expected at most {cluster.brokers}, as many as there are brokers, "
                f"got {topic.replication}"
            )
        return Change(topic, Action.CREATE, tuple(Setting(name, None, value) for name, value in wanted.items()))
    _check_possible(topic, live, where)
    old = {"partitions": str(live.partitions), "replication": str(live.replication), **live.config}
    differing = tuple(Setting(name, old.get(name), new) for name, new in wanted.items() if old.get(name) != new)
    return Change(topic, Action.ALTER if differing else Action.KEEP, differing)


def _check_possible(topic: TopicSpec, live: LiveTopic, where: str) -> None:
    if topic.partitions < live.partitions:
        raise ConfigError(
            f"{where}.partitions: expected at least {live.partitions}, as many as the topic has, "
            f"got {topic.partitions}; Kafka can't take partitions away"
        )
    if topic.state_of and topic.partitions != live.partitions:
        raise ConfigError(
            f"{where}.partitions: expected {live.partitions}, as the topic has, got {topic.partitions}; with another "
            "number, a worker would not find the state in it; the number needn't be that of the source topic"
        )
    if topic.replication != live.replication:
        raise ConfigError(
            f"{where}.replication: expected {live.replication}, as the topic has, got {topic.replication}; "
            "use kafka-reassign-partitions.sh to move replicas"
        )


class TopicAdmin:
    """Reads and changes the topics of a cluster.

    Methods raise UnavailableError if the cluster doesn't answer, HaltError if it refuses; both name its address.

    Args:
        settings: the cluster.
        answer_seconds: longest wait for an answer; a change may take 30 s.
    """

    def __init__(self, settings: KafkaSettings, *, answer_seconds: float = 10.0) -> None:
        self._settings = settings
        self._answer_seconds = answer_seconds
        self._client = AdminClient({**client_config(settings), "log_level": 0})  # failures are raised instead

    def read(self, names: Iterable[str]) -> Cluster:
        """Read the state of the cluster; missing topics are left out."""
        check_connection(self._settings)
        present = self._describe(names)
        brokers = self._brokers()
        configs = self._read_configs(present)
        return Cluster(brokers, {name: _live(topic, configs[name]) for name, topic in present.items()})

    def _brokers(self) -> int:
        try:
            brokers = self._client.list_topics(timeout=self._answer_seconds).brokers  # see `failures` for the reason
        except KafkaException as error:
            raise explain_kafka(error.args[0], self._settings) from None
        if not brokers:
            raise UnavailableError(f"Kafka at {self._settings.bootstrap_servers} is not available: no broker is alive")
        return len(brokers)

    def ids(self, names: Iterable[str]) -> dict[str, str]:
        """Return Kafka's ids of topics by name; missing topics are left out. A topic created anew has a new id."""
        return {name: str(topic.topic_id) for name, topic in self._describe(names).items()}

    def partitions(self, names: Iterable[str]) -> dict[str, int]:
        """Return the number of partitions of topics on the broker, by name; missing topics are left out."""
        return {name: len(topic.partitions) for name, topic in self._describe(names).items()}

    def rights(self, names: Iterable[str]) -> dict[str, frozenset[AclOperation]]:
        """Return the operations that we may do on topics, by name; missing topics are left out."""
        there = self._describe(names, include_authorized_operations=True)
        return {name: _rights(topic) for name, topic in there.items()}

    def group_rights(self, group: str) -> frozenset[AclOperation]:
        """Return the operations that we may do on a consumer group."""
        asked = self._client.describe_consumer_groups(
            [group], include_authorized_operations=True, request_timeout=self._answer_seconds
        )
        return _rights(self._results(asked, "group ")[group])

    def members(self, group: str) -> tuple[str, ...]:
        """Return the clients that are members of a consumer group, as `client id at host`; none without a group."""
        asked = self._client.describe_consumer_groups([group], request_timeout=self._answer_seconds)
        described = self._results(asked, "group ")[group]
        return tuple(f"{member.client_id} at {member.host}" for member in described.members or ())

    def check_kept(self, names: Iterable[str]) -> None:
        """Check that no topic is compacted, so that the broker keeps every record until its retention ends.

        A topic whose configuration the user may not read is left out; if it is compacted, the broker refuses records
        without a key.

        Raises:
            HaltError: a topic is compacted; the message says how to change that.
        """
        for name, future in self._ask_configs(names).items():
            try:
                policy = future.result()["cleanup.policy"].value
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise explain_kafka(error.args[0], self._settings, f"topic {name}") from None
            else:
                if "compact" in str(policy):
                    raise HaltError(compacted_topic(self._settings, name))

    def _ask_configs(self, names: Iterable[str]) -> dict[str, Future[Any]]:
        resources = {ConfigResource(ResourceType.TOPIC, name): name for name in names}
        if not resources:
            return {}
        asked = self._client.describe_configs(list(resources), request_timeout=self._answer_seconds)
        return {resources[resource]: future for resource, future in asked.items()}

    def _describe(self, names: Iterable[str], **options: bool) -> dict[str, TopicDescription]:
        """Describe topics by name; missing topics are left out."""
        there: dict[str, TopicDescription] = {}
        topics = TopicCollection(list(names))
        asked = self._client.describe_topics(topics, request_timeout=self._answer_seconds, **options)
        for name, future in asked.items():
            try:
                there[name] = future.result()
            except KafkaException as error:
                if error.args[0].code() not in _NO_TOPIC:
                    raise explain_kafka(error.args[0], self._settings, f"topic {name}") from None
        return there

    def apply(self, changes: Iterable[Change]) -> None:
        """Make the changes, and wait until new partitions can be used.

        Brokers validate all changes first, so a refusal leaves everything unchanged.
        """
        created = [_creation(change.topic) for change in changes if change.action is Action.CREATE]
        altered = [change for change in changes if change.action is Action.ALTER]
        grown = [NewPartitions(change.topic.name, change.topic.partitions) for change in altered if change.grows]
        configured = [_configuration(change) for change in altered if change.config]
        requests: tuple[tuple[Callable[..., dict[Any, Future[Any]]], list[Any]], ...] = (
            (self._client.create_topics, created),
            (self._client.create_partitions, grown),
            (self._client.incremental_alter_configs, configured),
        )
        for validate_only in (True, False):
            for request, items in requests:
                if items:
                    self._results(request(items, request_timeout=_CHANGE_SECONDS, validate_only=validate_only))
        new = {topic.topic: topic.num_partitions for topic in created}
        new |= {topic.topic: topic.new_total_count for topic in grown}
        wait_for_leaders(self._settings, new, wait_seconds=_CHANGE_SECONDS)

    def _read_configs(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        entries = self._results(self._client.describe_configs(resources)) if resources else {}
        return {name: {entry.name: entry.value for entry in of.values()} for name, of in entries.items()}

    def _results(self, futures: Mapping[Any, Future[Any]], kind: str = "topic ") -> dict[str, Any]:
        """Return all results by name; raise the first failure."""
        results = {}
        for resource, future in futures.items():
            name = getattr(resource, "name", resource)
            try:
                results[name] = future.result()
            except KafkaException as error:
                raise explain_kafka(error.args[0], self._settings, f"{kind}{name}") from None
        return results


def check_topics_exist(settings: KafkaSettings, topics: Iterable[TopicSpec], existing: Container[str]) -> None:
    """Check that the cluster has all topics.

    Raises:
        HaltError: a topic is missing; the message says how to create it.
    """
    for topic in topics:
        if topic.name not in existing:
            raise HaltError(missing_topic(settings, topic.name))


def compacted_topic(settings: KafkaSettings, topic: str) -> str:
    """Return the message for a compacted topic: the harm, and how to change it."""
    return (
        f"Kafka at {settings.bootstrap_servers}: topic {topic} is compacted, so the broker would delete all but the "
        "newest dead letter of each key, and refuses those without a key; expected cleanup.policy=delete: change it "
        "with `chimera topics apply`"
    )


def _rights(described: Any) -> frozenset[AclOperation]:
    return frozenset(described.authorized_operations or ())


def _live(topic: TopicDescription, config: Mapping[str, str]) -> LiveTopic:
    return LiveTopic(len(topic.partitions), min(len(part.replicas) for part in topic.partitions), config)


def _creation(topic: TopicSpec) -> NewTopic:
    return NewTopic(topic.name, topic.partitions, topic.replication, config=topic.config)


def _configuration(change: Change) -> ConfigResource:
    values = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in change.config.items()
    ]
    return ConfigResource(ResourceType.TOPIC, change.topic.name, incremental_configs=values)
