"""The event families: which topic, key, table, batch policy and schemas belong together, read from topics.yaml."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, Field, ValidationError

from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.schema.versions import Schema, load_schemas
from pipeline.validation_messages import expected, unknown_key

DEAD_LETTERS = ".dlq"
"""What the name of a dead-letter topic has after that of its source."""

_KEYS = ("version", "defaults", "dead_letters", "topics")
_TIMESTAMPS = {"broker": "LogAppendTime", "producer": "CreateTime"}
# The broker compacts closed segments alone, and these soon: what is superseded has to be read all the same until then.
_COMPACTION = {"segment.bytes": str(16 * 1024 * 1024), "min.cleanable.dirty.ratio": "0.1"}


class BatchPolicy(BaseModel, extra="forbid", frozen=True, strict=True):
    """When a micro-batch ends: at whichever of the three limits comes first."""

    max_rows: int = Field(ge=1, le=1_000_000)
    max_bytes: int = Field(ge=1024, le=256 * 1024 * 1024)
    linger_seconds: float = Field(gt=0, le=600)


class TopicSpec(BaseModel, extra="forbid", frozen=True, strict=True):
    """A Kafka topic as topics.yaml declares it."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")
    partitions: int = Field(ge=1, le=10_000)
    replication: int = Field(ge=1, le=32)
    retention_hours: float = Field(ge=0.01, le=1_000_000, allow_inf_nan=False)
    max_message_bytes: int = Field(ge=1024, le=256 * 1024 * 1024)
    timestamps: Literal["broker", "producer"]
    cleanup: Literal["delete", "compact"] = "delete"
    state_of: str | None = None
    batch: BatchPolicy | None = None
    family: str | None = None
    key: str | None = None
    table: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")

    @property
    def config(self) -> dict[str, str]:
        """The broker's configuration of this topic: name to value, as Kafka spells both."""
        retention = {"retention.ms": str(round(self.retention_hours * 3_600_000))}
        return {
            "cleanup.policy": self.cleanup,
            **(_COMPACTION if self.cleanup == "compact" else retention),
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": _TIMESTAMPS[self.timestamps],
        }

    @property
    def fills(self) -> str | None:
        """The table that its records are rows of; None of a topic without a family."""
        return self.family and (self.table or self.family)


_TOPIC_KEYS = tuple(key for key in TopicSpec.model_fields if key != "name")


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice: YAML forbids it, and PyYAML would keep the last one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise ConfigError(
                        f"{self.name}: {key.value}: expected once, again in line {key.start_mark.line + 1}"
                    )
                seen.add(key.value)
        return node


@dataclass(frozen=True, slots=True)
class Family:
    """One event family: its topic and the field that keys it, where its rows and its dead letters go, its schemas.

    The schemas are all versions, oldest first.
    """

    name: str
    topic: TopicSpec
    key: str
    table: str
    dead_letters: TopicSpec
    batch: BatchPolicy
    schemas: tuple[Schema, ...]

    @property
    def schema(self) -> Schema:
        """The newest schema: what every record is resolved to, and what declares the bounds."""
        return self.schemas[-1]


class RollupSpec(NamedTuple):
    """What the hourly rollup is derived from, and the topic that its state is kept in."""

    source: Family
    state: TopicSpec


@dataclass(frozen=True)
class Catalog:
    """All topics, the families among them, and the rollup where topics.yaml declares one."""

    topics: tuple[TopicSpec, ...]
    families: tuple[Family, ...]
    rollup: RollupSpec | None

    def family(self, name: str) -> Family:
        """The family of that name.

        Raises:
            ConfigError: there is none; names those there are.
        """
        for family in self.families:
            if family.name == name:
                return family
        known = ", ".join(family.name for family in self.families)
        raise ConfigError(f"no event family {name!r}; expected one of {known}")


def load_catalog(settings: Settings) -> Catalog:
    """Read topics.yaml and the schemas it refers to.

    Raises:
        ConfigError: one line naming file, key and what was expected.
    """
    topics = load_topics(settings.topics.file, settings.topics.replication)
    schemas = load_schemas(settings.schemas.directory)
    by_name = {topic.name: topic for topic in topics}
    families = tuple(_family(topic, by_name, schemas, settings.topics.file) for topic in topics if topic.family)
    owners: dict[str, str] = {}
    for family in families:
        if (owner := owners.setdefault(family.table, family.name)) != family.name:
            raise ConfigError(
                f"{settings.topics.file}: topics.{family.topic.name}.table: expected one table a family, "
                f"but {family.table!r} is that of {owner}"
            )
    orphans = sorted(set(schemas) - {family.name for family in families})
    if orphans:
        raise ConfigError(
            f"{settings.topics.file}: topics: expected one of family {orphans[0]!r}, "
            f"which has a schema in {settings.schemas.directory}"
        )
    return Catalog(topics, families, _rollup(topics, families, settings.topics.file))


def load_topics(path: Path, replication: int | None = None) -> tuple[TopicSpec, ...]:
    """The topics that a topics.yaml declares; `replication` replaces the factor of every topic.

    Raises:
        ConfigError: the file is missing or wrong.
    """
    try:
        with path.open(encoding="utf-8") as file:
            document = yaml.load(file, _Loader)  # noqa: S506 (it is a safe one)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected the declaration of topics") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error.reason}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or not isinstance(document.get("topics"), dict) or not document["topics"]:
        raise ConfigError(f"{path}: topics: expected a mapping of topic names to their settings")
    if document.get("version") != 1:
        raise ConfigError(f"{path}: version: expected 1, got {document.get('version')!r}")
    unknown = sorted(set(document) - set(_KEYS))
    if unknown:
        raise ConfigError(f"{path}: {unknown[0]}: {unknown_key(_KEYS)}")
    defaults = document.get("defaults") or {}
    overrides = {} if replication is None else {"replication": replication}
    topics = tuple(_topic(path, str(name), defaults, own, overrides) for name, own in document["topics"].items())
    owners: dict[str, str] = {}
    for topic in topics:
        if topic.family and owners.setdefault(topic.family, topic.name) != topic.name:
            raise ConfigError(
                f"{path}: topics.{topic.name}.family: expected one topic a family, "
                f"but {topic.family!r} has {owners[topic.family]} already"
            )
    return (*topics, *_dead_letters(path, topics, defaults, document.get("dead_letters"), overrides))


def _dead_letters(
    path: Path, topics: tuple[TopicSpec, ...], defaults: Any, own: Any, overrides: dict[str, Any]
) -> Iterator[TopicSpec]:
    """The dead-letter topic of each family's topic."""
    if own is None:
        raise ConfigError(f"{path}: dead_letters: expected what the topics <topic>{DEAD_LETTERS} have")
    for source in topics:
        if source.family:
            topic = _topic(path, f"{source.name}{DEAD_LETTERS}", defaults, own, overrides, where="dead_letters")
            if topic.timestamps != "broker":
                raise ConfigError(
                    f"{path}: dead_letters.timestamps: expected 'broker', because `chimera dlq` goes by one clock, "
                    f"got {topic.timestamps!r}"
                )
            if topic.max_message_bytes <= source.max_message_bytes:
                raise ConfigError(
                    f"{path}: dead_letters.max_message_bytes: expected more than the {source.max_message_bytes} of "
                    f"{source.name}, because a dead letter is the record and headers, got {topic.max_message_bytes}"
                )
            yield topic


def _topic(
    path: Path, name: str, defaults: Any, own: Any, overrides: dict[str, Any], *, where: str | None = None
) -> TopicSpec:
    """One topic; `where` is the key that declares it, when that isn't its name."""
    where = where or f"topics.{name}"
    for key, value in (("defaults", defaults), (where, own)):
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {key}: expected a mapping, got {value!r}")
    merged = {**defaults, **own, **overrides, "name": name}
    if isinstance(own.get("batch"), dict) and isinstance(defaults.get("batch"), dict):
        merged["batch"] = {**defaults["batch"], **own["batch"]}
    if "family" not in own and "batch" not in own:
        merged.pop("batch", None)
    try:
        return TopicSpec.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(f"{path}: {where}.{_explain(error.errors()[0])}") from None


def _explain(problem: Mapping[str, Any]) -> str:
    """The key, what was expected of it, and what it has; the valid keys, where it isn't one."""
    key = ".".join(map(str, problem["loc"]))
    match problem["type"]:
        case "extra_forbidden":
            return f"{key}: {unknown_key(BatchPolicy.model_fields if len(problem['loc']) > 1 else _TOPIC_KEYS)}"
        case "missing":
            return f"{key}: {expected(problem)}, it has none"
        case "model_type":
            return f"{key}: {expected(problem)} of {', '.join(BatchPolicy.model_fields)}, got {problem['input']!r}"
    return f"{key}: {expected(problem)}, got {problem['input']!r}"


def _family(
    topic: TopicSpec, topics: Mapping[str, TopicSpec], schemas: Mapping[str, tuple[Schema, ...]], path: Path
) -> Family:
    where = f"{path}: topics.{topic.name}"
    name = topic.family or ""
    if name not in schemas:
        raise ConfigError(f"{where}.family: no schema {name}.v<N>.avsc; expected one of {', '.join(sorted(schemas))}")
    newest = schemas[name][-1]
    key = newest.by_name.get(topic.key or "")
    if key is None or key.logical_type != "uuid":
        raise ConfigError(
            f"{where}.key: expected a field of {newest.file.name} with logicalType uuid, got {topic.key!r}"
        )
    if topic.batch is None:
        raise ConfigError(f"{where}.batch: expected max_rows, max_bytes and linger_seconds")
    dead_letters = topics[f"{topic.name}{DEAD_LETTERS}"]
    return Family(name, topic, key.name, topic.fills or name, dead_letters, topic.batch, schemas[name])


def _rollup(topics: tuple[TopicSpec, ...], families: tuple[Family, ...], path: Path) -> RollupSpec | None:
    """The topic that says whose state it has, and that family."""
    states = [topic for topic in topics if topic.state_of]
    if not states:
        return None
    state, *others = states
    where = f"{path}: topics.{state.name}"
    if others:
        raise ConfigError(f"{where}.state_of: expected one topic with it, but {others[0].name} has it too")
    sources = {family.name: family for family in families if family.topic != state}
    if state.state_of not in sources:
        raise ConfigError(
            f"{where}.state_of: expected the family of another topic, one of {', '.join(sorted(sources))}, "
            f"got {state.state_of!r}"
        )
    if state.cleanup != "compact":
        raise ConfigError(f"{where}.cleanup: expected 'compact', so that no state is deleted for its age")
    return RollupSpec(sources[state.state_of], state)
