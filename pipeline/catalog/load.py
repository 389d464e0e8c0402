"""Loads the catalog: joins the topics of topics.yaml with the schemas, and checks that they agree."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.catalog.model import DEAD_LETTERS, Catalog, Family, RollupSpec, TopicSpec
from pipeline.catalog.topics_file import load_topics
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.schema.versions import Schema, load_schemas


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
