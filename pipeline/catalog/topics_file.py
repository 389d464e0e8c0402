"""Reads topics.yaml: the declared topics, and the dead-letter topic of each family's topic."""

from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.catalog.model import DEAD_LETTERS, BatchPolicy, RowRetention, TopicSpec
from pipeline.errors import ConfigError
from pipeline.validation_messages import unknown_key_message, validation_message

_KEYS = ("version", "defaults", "dead_letters", "topics")
# Mappings within a topic, and the keys of topics that take the defaults for them.
_OF_FILLERS = {"batch": {"family"}, "rows": {"family", "state_of"}}
_MAPPINGS: dict[str, type[BaseModel]] = {"batch": BatchPolicy, "rows": RowRetention}
_OWN_KEYS = ("version", "topics")
_TOPIC_KEYS = tuple(key for key in TopicSpec.model_fields if key != "name")


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
