"""Topics: how the cluster differs from topics.yaml, as data, and the requests that make it the same."""

import enum
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
    TopicMetadata,
)

from pipeline.config import KafkaSettings
from pipeline.errors import ChimeraError, ConfigError, HaltError, UnavailableError
from pipeline.families import TopicSpec

_ANSWER_SECONDS = 10.0
_CHANGE_SECONDS = 30.0
# Brokers that answer, but not now; any other refusal would be the same the next time.
_NOT_NOW = frozenset({KafkaError.REQUEST_TIMED_OUT, KafkaError.NOT_CONTROLLER, KafkaError.BROKER_NOT_AVAILABLE})


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
        self._address = settings.bootstrap_servers
        self._client = AdminClient({**settings.client, "log_level": 0})  # what fails is raised; once is enough

    def read(self, names: Iterable[str]) -> Cluster:
        """The cluster, with those of the named topics that it has."""
        try:
            metadata = self._client.list_topics(timeout=_ANSWER_SECONDS)
        except KafkaException as error:
            raise self._explained(error) from None
        present = [name for name in names if name in metadata.topics]
        configs = self._read_configs(present)
        return Cluster(len(metadata.brokers), {name: _live(metadata.topics[name], configs[name]) for name in present})

    def ids(self, names: Iterable[str]) -> dict[str, str]:
        """Kafka's ids of those of the named topics that there are; a topic created anew under its name has another."""
        there: dict[str, str] = {}
        topics = TopicCollection(list(names))
        for name, future in self._client.describe_topics(topics, request_timeout=_ANSWER_SECONDS).items():
            try:
                there[name] = str(future.result().topic_id)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise self._explained(error, f" {name}") from None
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

    def _results(self, futures: Mapping[Any, Future[Any]]) -> dict[str, Any]:
        """What came of each topic, when all have gone well."""
        results = {}
        for resource, future in futures.items():
            name = getattr(resource, "name", resource)
            try:
                results[name] = future.result()
            except KafkaException as error:
                raise self._explained(error, f" {name}") from None
        return results

    def _explained(self, error: KafkaException, topic: str = "") -> ChimeraError:
        reason: KafkaError = error.args[0]
        if reason.code() < 0 or reason.code() in _NOT_NOW:  # below zero are the client's own: it got no answer
            return UnavailableError(f"Kafka at {self._address} is not available: {reason.str()}")
        return HaltError(f"Kafka at {self._address} refuses{topic}: {reason.str()}")


def _live(topic: TopicMetadata, config: Mapping[str, str]) -> LiveTopic:
    return LiveTopic(len(topic.partitions), min(len(part.replicas) for part in topic.partitions.values()), config)


def _creation(topic: TopicSpec) -> NewTopic:
    return NewTopic(topic.name, topic.partitions, topic.replication, config=topic.config)


def _configuration(change: Change) -> ConfigResource:
    values = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in change.config.items()
    ]
    return ConfigResource(ResourceType.TOPIC, change.topic.name, incremental_configs=values)
