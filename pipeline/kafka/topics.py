"""Topics: how the cluster differs from topics.yaml, as data, and the requests that make it the same."""

import enum
from collections.abc import Callable, Iterable, Mapping
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
from pipeline.errors import ConfigError
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import check_connection, explain_kafka

_ANSWER_SECONDS = 10.0
_CHANGE_SECONDS = 30.0
_NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION})  # the latter: no such name can be


@dataclass(frozen=True, slots=True)
class LiveTopic:
    """A topic as the cluster has it; `config` holds the values in force, set on the topic or not."""

    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a plan compares with: the number of brokers, and every topic they have."""

    brokers: int
    topics: Mapping[str, LiveTopic]


class Action(enum.StrEnum):
    """What becomes of a topic."""

    CREATE = "+"
    ALTER = "~"
    KEEP = "="


@dataclass(frozen=True, slots=True)
class Setting:
    """One property of a topic: its value in the cluster, None when there is no such topic, and the declared one."""

    name: str
    old: str | None
    new: str


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one declared topic: all its properties when it is created, otherwise those that differ."""

    topic: TopicSpec
    action: Action
    settings: tuple[Setting, ...]

    @property
    def grows(self) -> bool:
        """Whether an existing topic gets more partitions: the records of a key may then land in another one."""
        return self.action is Action.ALTER and any(setting.name == "partitions" for setting in self.settings)

    @property
    def config(self) -> dict[str, str]:
        """Those of the settings that are the broker's configuration of the topic."""
        return {setting.name: setting.new for setting in self.settings if setting.name in self.topic.config}


def plan(topics: Iterable[TopicSpec], cluster: Cluster, file: Path) -> tuple[Change, ...]:
    """What it takes to make the cluster's topics the declared ones; those that aren't declared are left alone.

    Args:
        topics: as declared.
        cluster: as it is.
        file: where they are declared, for messages.

    Raises:
        ConfigError: something Kafka can't do: fewer partitions, another replication factor, more replicas than brokers.
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
            "number, nobody would find the state that is in it, and it does for any number of source partitions"
        )
    if topic.replication != live.replication:
        raise ConfigError(
            f"{where}.replication: expected {live.replication}, as the topic has, got {topic.replication}; "
            "replicas are moved by kafka-reassign-partitions.sh"
        )


class TopicAdmin:
    """Reads and changes the topics of a cluster.

    Its methods raise UnavailableError when the cluster doesn't answer, HaltError when it refuses; both say where it is.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._client = AdminClient({**client_config(settings), "log_level": 0})  # what fails is raised; once is enough

    def read(self, names: Iterable[str]) -> Cluster:
        """The cluster, with those of the named topics that it has."""
        check_connection(self._settings)
        present = self._describe(names)
        try:
            brokers = self._client.describe_cluster(request_timeout=_ANSWER_SECONDS).result().nodes
        except KafkaException as error:
            raise explain_kafka(error.args[0], self._settings) from None
        configs = self._read_configs(present)
        return Cluster(len(brokers), {name: _live(topic, configs[name]) for name, topic in present.items()})

    def ids(self, names: Iterable[str]) -> dict[str, str]:
        """Kafka's ids of those of the named topics that there are; a topic created anew under its name has another."""
        return {name: str(topic.topic_id) for name, topic in self._describe(names).items()}

    def rights(self, names: Iterable[str]) -> dict[str, frozenset[AclOperation]]:
        """What we may do with those of the named topics that there are."""
        there = self._describe(names, include_authorized_operations=True)
        return {name: _rights(topic) for name, topic in there.items()}

    def group_rights(self, group: str) -> frozenset[AclOperation]:
        """What we may do with a consumer group."""
        asked = self._client.describe_consumer_groups(
            [group], include_authorized_operations=True, request_timeout=_ANSWER_SECONDS
        )
        return _rights(self._results(asked, "group ")[group])

    def _describe(self, names: Iterable[str], **options: bool) -> dict[str, TopicDescription]:
        """Those of the topics that there are; HaltError when we may not even know that."""
        there: dict[str, TopicDescription] = {}
        topics = TopicCollection(list(names))
        for name, future in self._client.describe_topics(topics, request_timeout=_ANSWER_SECONDS, **options).items():
            try:
                there[name] = future.result()
            except KafkaException as error:
                if error.args[0].code() not in _NO_TOPIC:
                    raise explain_kafka(error.args[0], self._settings, f"topic {name}") from None
        return there

    def apply(self, changes: Iterable[Change]) -> None:
        """Make the changes. The brokers validate all of them first, so that what they refuse changes nothing."""
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

    def _read_configs(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        entries = self._results(self._client.describe_configs(resources)) if resources else {}
        return {name: {entry.name: entry.value for entry in of.values()} for name, of in entries.items()}

    def _results(self, futures: Mapping[Any, Future[Any]], kind: str = "topic ") -> dict[str, Any]:
        """What came of each, when all have gone well."""
        results = {}
        for resource, future in futures.items():
            name = getattr(resource, "name", resource)
            try:
                results[name] = future.result()
            except KafkaException as error:
                raise explain_kafka(error.args[0], self._settings, f"{kind}{name}") from None
        return results


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
