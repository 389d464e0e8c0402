"""The catalog: topics and event families, read from topics.yaml and the schemas that it refers to."""

from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from pipeline.config import Settings
from pipeline.errors import ConfigError, unknown_key_message, validation_message
from pipeline.schema.versions import Schema, load_schemas

DEAD_LETTERS = ".dlq"
"""Suffix that the name of a dead-letter topic adds to its source's name."""

_TIMESTAMPS = {"broker": "LogAppendTime", "producer": "CreateTime"}
# The broker compacts closed segments only. Small segments close early, so that readers find fewer superseded records.
_COMPACTION = {"segment.bytes": str(16 * 1024 * 1024), "min.cleanable.dirty.ratio": "0.1"}


class BatchPolicy(BaseModel, extra="forbid", frozen=True, strict=True):
    """The limits of a micro-batch; the one that is reached first ends it, unless it has too few rows."""

    max_rows: int = Field(ge=1, le=1_000_000)
    max_bytes: int = Field(ge=1024, le=256 * 1024 * 1024)
    linger_seconds: float = Field(gt=0, le=600)
    min_rows: int = Field(1, ge=1, le=1_000_000)
    """Rows below which a micro-batch waits on after its linger."""
    max_linger_seconds: float | None = Field(None, gt=0, le=3600)
    """Time after which a micro-batch ends with any number of rows; the linger if there is none."""

    def linger_of(self, rows: int) -> float:
        """Seconds that so many rows wait for more."""
        return max(self.linger_seconds, self.max_linger_seconds or 0) if rows < self.min_rows else self.linger_seconds


class RowRetention(BaseModel, extra="forbid", frozen=True, strict=True):
    """Ages of a table's days at which they move to slower disks, and are deleted."""

    warm_after_days: int = Field(ge=1, le=36_500)
    cold_after_days: int = Field(ge=1, le=36_500)
    delete_after_days: int = Field(ge=1, le=36_500)

    @model_validator(mode="after")
    def _ages_grow(self) -> Self:
        if not self.warm_after_days < self.cold_after_days < self.delete_after_days:
            raise ValueError("warm_after_days, cold_after_days and delete_after_days, each more than the one before")
        return self


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
    rows: RowRetention | None = None
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
        """The table that stores its records; None for a topic without a family."""
        return self.family and (self.table or self.family)


@dataclass(frozen=True, slots=True)
class Family:
    """One event family: its topic, key, table, dead-letter topic, batch policy and schemas."""

    name: str
    topic: TopicSpec
    key: str
    """Name of the field that keys the records."""
    table: str
    dead_letters: TopicSpec
    batch: BatchPolicy
    schemas: tuple[Schema, ...]
    """All versions, oldest first."""

    @property
    def schema(self) -> Schema:
        """The newest schema: records are resolved to it and held to its bounds."""
        return self.schemas[-1]


class RollupSpec(NamedTuple):
    """The hourly rollup: its source family, and the topic that keeps its state."""

    source: Family
    state: TopicSpec


@dataclass(frozen=True)
class Catalog:
    """All topics and families, and the rollup if topics.yaml declares one."""

    topics: tuple[TopicSpec, ...]
    families: tuple[Family, ...]
    rollup: RollupSpec | None

    def family(self, name: str) -> Family:
        """The family with this name.

        Raises:
            ConfigError: no family has this name; the message lists the families.
        """
        for family in self.families:
            if family.name == name:
                return family
        known = ", ".join(family.name for family in self.families)
        raise ConfigError(f"no event family {name!r}; expected one of {known}")


_KEYS = ("version", "defaults", "dead_letters", "topics")
# Mappings within a topic, and the keys of topics that take the defaults for them.
_OF_FILLERS = {"batch": {"family"}, "rows": {"family", "state_of"}}
_MAPPINGS: dict[str, type[BaseModel]] = {"batch": BatchPolicy, "rows": RowRetention}
_OWN_KEYS = ("version", "topics")
_TOPIC_KEYS = tuple(key for key in TopicSpec.model_fields if key != "name")


def load_catalog(settings: Settings) -> Catalog:
    """Read topics.yaml and the schemas it refers to.

    Raises:
        ConfigError: one line that names file, key and expected value.
    """
    topics = load_topics(settings.topics.file, settings.topics.replication, settings.topics.own_file)
    schemas = load_schemas(settings.schemas.directory, settings.schemas.own_directory)
    by_name = {topic.name: topic for topic in topics}
    families = tuple(_family(topic, by_name, schemas, settings.topics.file) for topic in topics if topic.family)
    owners: dict[str, str] = {}
    for family in families:
        if (owner := owners.setdefault(family.table, family.name)) != family.name:
            raise ConfigError(
                f"{settings.topics.file}: topics.{family.topic.name}.table: expected one table a family, "
                f"but {owner} has {family.table!r} already"
            )
    orphans = sorted(set(schemas) - {family.name for family in families})
    if orphans:
        raise ConfigError(
            f"{settings.topics.file}: topics: expected a topic of family {orphans[0]!r}, "
            f"because {settings.schemas.directory} has its schema"
        )
    return Catalog(topics, families, _rollup(topics, families, settings.topics.file))


def load_topics(path: Path, replication: int | None = None, own: Path | None = None) -> tuple[TopicSpec, ...]:
    """Read the topics that a topics.yaml declares, and add the dead-letter topics.

    Args:
        path: the topics.yaml.
        replication: replaces the replication factor of every topic.
        own: file with topics of one's own, which take the defaults of the topics.yaml.

    Raises:
        ConfigError: the file is missing or wrong; one line that names file, key and expected value.
    """
    document = _checked(path, _document(path))
    defaults = document.get("defaults") or {}
    overrides = {} if replication is None else {"replication": replication}
    topics = [_topic(path, str(name), defaults, declared, overrides) for name, declared in document["topics"].items()]
    if own is not None:
        topics += _own_topics(own, {topic.name for topic in topics}, defaults, overrides)
    owners: dict[str, str] = {}
    for topic in topics:
        if topic.family and owners.setdefault(topic.family, topic.name) != topic.name:
            raise ConfigError(
                f"{own or path}: topics.{topic.name}.family: expected one topic a family, "
                f"but {topic.family!r} has {owners[topic.family]} already"
            )
    return (*topics, *_dead_letters(path, tuple(topics), defaults, document.get("dead_letters"), overrides))


def _family(
    topic: TopicSpec, topics: Mapping[str, TopicSpec], schemas: Mapping[str, tuple[Schema, ...]], path: Path
) -> Family:
    where = f"{path}: topics.{topic.name}"
    name = topic.family or ""
    if name not in schemas:
        raise ConfigError(f"{where}.family: no schema {name}.v<N>.avsc; expected one of {', '.join(sorted(schemas))}")
    newest = schemas[name][-1]
    key, time = newest.by_name.get(topic.key or ""), newest.by_name.get("ts")
    if time is None or time.logical_type != "timestamp-millis" or time.nullable or not time.required:
        raise ConfigError(f"{newest.file}: ts: expected a timestamp-millis that is never null and has no default")
    if key is None or key.logical_type != "uuid" or key.nullable:
        raise ConfigError(
            f"{where}.key: expected a field of {newest.file.name} with logicalType uuid, got {topic.key!r}"
        )
    if topic.batch is None:
        raise ConfigError(f"{where}.batch: expected max_rows, max_bytes and linger_seconds")
    dead_letters = topics[f"{topic.name}{DEAD_LETTERS}"]
    return Family(name, topic, key.name, topic.fills or name, dead_letters, topic.batch, schemas[name])


def _rollup(topics: tuple[TopicSpec, ...], families: tuple[Family, ...], path: Path) -> RollupSpec | None:
    """The topic with `state_of`, and the family that it names; None without such a topic."""
    states = [topic for topic in topics if topic.state_of]
    if not states:
        return None
    state, *others = states
    where = f"{path}: topics.{state.name}"
    if others:
        raise ConfigError(f"{where}.state_of: expected one topic with state_of, but {others[0].name} has it too")
    sources = {family.name: family for family in families if family.topic != state}
    if state.state_of not in sources:
        raise ConfigError(
            f"{where}.state_of: expected the family of another topic, one of {', '.join(sorted(sources))}, "
            f"got {state.state_of!r}"
        )
    if state.cleanup != "compact":
        raise ConfigError(f"{where}.cleanup: expected 'compact', so that the broker deletes no state for its age")
    return RollupSpec(sources[state.state_of], state)


def _own_topics(path: Path, taken: Container[str], defaults: Any, overrides: dict[str, Any]) -> list[TopicSpec]:
    """Read the topics of a file of one's own; a topic of the project can't be declared anew."""
    declared = _checked(path, _document(path), _OWN_KEYS)["topics"]
    for name in declared:
        if name in taken:
            raise ConfigError(f"{path}: topics.{name}: expected another name, because topics.yaml has this topic")
    return [_topic(path, str(name), defaults, own, overrides) for name, own in declared.items()]


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a repeated key: YAML forbids it, but PyYAML keeps the last value."""

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


def _document(path: Path) -> Any:
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, _Loader)  # noqa: S506 (_Loader is a safe loader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected the declaration of topics") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error.reason}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _checked(path: Path, document: Any, keys: Sequence[str] = _KEYS) -> dict[str, Any]:
    """The document, with its top level checked."""
    if isinstance(document, dict):
        _check_keys(path, "", document, keys)
    if not isinstance(document, dict) or not isinstance(document.get("topics"), dict) or not document["topics"]:
        raise ConfigError(f"{path}: topics: expected a mapping of topic names to their settings")
    if document.get("version") != 1:
        raise ConfigError(f"{path}: version: expected 1, got {document.get('version')!r}")
    return document


def _check_keys(path: Path, where: str, mapping: Mapping[Any, Any], known: Collection[str]) -> None:
    """Refuse an unknown key; it is named before a key that is missing, because it is likely the misspelt one."""
    prefix = f"{where}." if where else ""
    for key in mapping:
        if key not in known:
            raise ConfigError(f"{path}: {prefix}{key}: {unknown_key_message(known, str(key))}")


def _dead_letters(
    path: Path, topics: tuple[TopicSpec, ...], defaults: Any, own: Any, overrides: dict[str, Any]
) -> Iterator[TopicSpec]:
    """Yield the dead-letter topic of each family's topic."""
    if own is None:
        raise ConfigError(f"{path}: dead_letters: expected the settings of the topics named <topic>{DEAD_LETTERS}")
    for source in topics:
        if source.family:
            topic = _topic(path, f"{source.name}{DEAD_LETTERS}", defaults, own, overrides, where="dead_letters")
            if topic.timestamps != "broker":
                raise ConfigError(
                    f"{path}: dead_letters.timestamps: expected 'broker', because `chimera dlq` relies on one clock, "
                    f"got {topic.timestamps!r}"
                )
            if topic.max_message_bytes <= source.max_message_bytes:
                raise ConfigError(
                    f"{path}: dead_letters.max_message_bytes: expected more than the {source.max_message_bytes} of "
                    f"{source.name}, because a dead letter adds headers to the record, got {topic.max_message_bytes}"
                )
            yield topic


def _topic(
    path: Path, name: str, defaults: Any, own: Any, overrides: dict[str, Any], *, where: str | None = None
) -> TopicSpec:
    """One topic; `where` is the key that declares it and defaults to topics.<name>."""
    where = where or f"topics.{name}"
    for key, value in (("defaults", defaults), (where, own)):
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {key}: expected a mapping, got {value!r}")
        _check_keys(path, key, value, _TOPIC_KEYS)
        for part, mapping in _MAPPINGS.items():
            if isinstance(value.get(part), dict):
                _check_keys(path, f"{key}.{part}", value[part], mapping.model_fields)
    merged = {**defaults, **own, **overrides, "name": name}
    for key, fillers in _OF_FILLERS.items():
        if isinstance(own.get(key), dict) and isinstance(defaults.get(key), dict):
            merged[key] = {**defaults[key], **own[key]}
        if key not in own and not fillers & own.keys():
            merged.pop(key, None)
    try:
        return TopicSpec.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(f"{path}: {where}.{_explain(error.errors()[0])}") from None


def _explain(problem: Mapping[str, Any]) -> str:
    """The key, the expected value and the given one."""
    key = ".".join(map(str, problem["loc"]))
    mapping = _MAPPINGS.get(str(problem["loc"][0]))
    keys = tuple(mapping.model_fields) if mapping else ()
    match problem["type"]:
        case "missing":
            return f"{key}: {validation_message(problem)}, it has none"
        case "model_type":
            return f"{key}: {validation_message(problem)} of {', '.join(keys)}, got {problem['input']!r}"
    return f"{key}: {validation_message(problem)}, got {problem['input']!r}"
