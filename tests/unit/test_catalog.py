"""The catalog: topics.yaml agrees with the schemas, and a mistake gives one line with file, key and expected value."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.catalog import RowRetention, load_catalog, load_topics
from pipeline.config import SchemasSettings, Settings, TopicsSettings
from pipeline.errors import ConfigError
from pipeline.operations.storage.tables import stored_tables

ROOT = Path(__file__).parents[2]
UI_EVENTS = "chimera.ui_events"
STATE = "chimera.session_stats.state"

Edit = Callable[[dict[str, Any]], object]


def _edited(directory: Path, edit: Edit) -> Path:
    """The project's topics.yaml after an edit."""
    document = yaml.safe_load((ROOT / "topics.yaml").read_text(encoding="utf-8"))
    edit(document)
    file = directory / "topics.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file


def _settings(file: Path, schemas: Path = ROOT / "schemas/avro") -> Settings:
    return Settings(topics=TopicsSettings(file=file), schemas=SchemasSettings(directory=schemas))


def _topic(**values: object) -> Edit:
    return lambda document: document["topics"][UI_EVENTS].update(values)


def _without(key: str) -> Edit:
    return lambda document: document["defaults"].pop(key)


def test_the_catalog_of_the_project_is_complete() -> None:
    """Each family has a topic, a table, and a key that is a field."""
    catalog = load_catalog(_settings(ROOT / "topics.yaml"))
    assert {family.name for family in catalog.families} == {
        "bench_runs",
        "llm_events",
        "ui_events",
        "watcher_runs",
        "episodes",
        "deployments",
    }
    for family in catalog.families:
        assert family.topic.name == f"chimera.{family.name}"
        assert family.table == family.name
        assert family.key in family.schema.by_name


def test_the_rollup_has_a_topic_for_its_state() -> None:
    """The state topic belongs to one family, is compacted, and has neither a family's records nor dead letters."""
    catalog = load_catalog(_settings(ROOT / "topics.yaml"))
    assert catalog.rollup is not None
    source, state = catalog.rollup
    assert (source.name, state.name, state.cleanup) == ("ui_events", STATE, "compact")
    assert (state.family, state.batch) == (None, None)
    assert f"{STATE}.dlq" not in {topic.name for topic in catalog.topics}


def test_without_a_state_topic_there_is_no_rollup(tmp_path: Path) -> None:
    """A topics.yaml without a state topic is complete, and has no rollup."""
    catalog = load_catalog(_settings(_edited(tmp_path, lambda document: document["topics"].pop(STATE))))
    assert catalog.rollup is None


def test_the_broker_sets_the_timestamps_of_records_and_dead_letters() -> None:
    """Retention and `chimera dlq` then rely on one clock, the broker's."""
    for family in load_catalog(_settings(ROOT / "topics.yaml")).families:
        assert family.topic.config["message.timestamp.type"] == "LogAppendTime"
        assert family.dead_letters.config["message.timestamp.type"] == "LogAppendTime"


def test_a_topic_inherits_missing_settings(tmp_path: Path) -> None:
    """Defaults fill missing settings, also inside a batch policy."""
    ui_events, *_ = load_topics(
        _edited(tmp_path, lambda document: document.update(topics={UI_EVENTS: {"batch": {"max_rows": 7}}}))
    )
    assert ui_events.partitions == 4
    assert ui_events.batch is not None
    assert (ui_events.batch.max_rows, ui_events.batch.max_bytes) == (7, 33_554_432)


def test_a_topic_without_a_family_has_no_batch_policy(tmp_path: Path) -> None:
    """The default batch policy applies to families; other topics are delivered record by record."""
    other, *_ = load_topics(_edited(tmp_path, lambda document: document.update(topics={"other": {}})))
    assert other.batch is None


def test_tables_have_the_specified_retention_unless_topics_yaml_gives_another(tmp_path: Path) -> None:
    """Also session_stats, with the topic of its state; a topic without a table has none, and an age may differ."""
    catalog = load_catalog(_settings(ROOT / "topics.yaml"))
    specified = RowRetention(warm_after_days=90, cold_after_days=365, delete_after_days=1095)
    assert {table.retention for table in stored_tables(catalog)} == {specified}
    assert len(stored_tables(catalog)) == 7
    assert {topic.rows for topic in catalog.topics if not topic.fills and not topic.state_of} == {None}
    edited = _edited(tmp_path, lambda document: document["topics"][UI_EVENTS].update(rows={"delete_after_days": 400}))
    (other,) = [topic for topic in load_topics(edited) if topic.name == UI_EVENTS]
    assert other.rows == specified.model_copy(update={"delete_after_days": 400})
    with pytest.raises(ConfigError, match="expected one of bench_runs"):
        stored_tables(catalog, ["none_such"])


def test_one_setting_replaces_every_replication_factor() -> None:
    """The setting `replication` overrides the file for each topic."""
    assert {topic.replication for topic in load_topics(ROOT / "topics.yaml", 3)} == {3}


def test_a_misspelt_default_is_named_before_the_key_that_it_leaves_missing(tmp_path: Path) -> None:
    """The line names the key as it stands in the file, and where it stands."""

    def misspell(document: dict[str, Any]) -> None:
        document["defaults"]["retension_hours"] = document["defaults"].pop("retention_hours")

    file = _edited(tmp_path, misspell)
    with pytest.raises(ConfigError) as caught:
        load_topics(file)
    assert str(caught.value).startswith(
        f"{file}: defaults.retension_hours: unknown key, perhaps retention_hours is meant; expected "
    )


@pytest.mark.parametrize(
    ("edit", "key", "expected"),
    [
        (_topic(partitions=0), f"topics.{UI_EVENTS}.partitions", "expected at least 1, got 0"),
        (_topic(partitions="few"), f"topics.{UI_EVENTS}.partitions", "expected a whole number, got 'few'"),
        (_topic(partitions=True), f"topics.{UI_EVENTS}.partitions", "expected a whole number, got True"),
        (
            _topic(partition=8),
            f"topics.{UI_EVENTS}.partition",
            "unknown key, perhaps partitions is meant; expected partitions, replication, retention_hours, max_mess",
        ),
        (
            _topic(batch={"rows": 1}),
            f"topics.{UI_EVENTS}.batch.rows",
            "_rows is meant; expected max_rows, max_bytes, linger_seconds",
        ),
        (
            _topic(batch=3),
            f"topics.{UI_EVENTS}.batch",
            "expected a mapping of max_rows, max_bytes, linger_seconds, min_rows, max_linger_seconds, got 3",
        ),
        (
            _topic(rows={"cold_after_days": 10}),
            f"topics.{UI_EVENTS}.rows",
            "expected warm_after_days, cold_after_days and delete_after_days, each more than the one before",
        ),
        (
            _topic(rows={"days": 1}),
            f"topics.{UI_EVENTS}.rows.days",
            "unknown key; expected warm_after_days",
        ),
        (_topic(rows={"warm_after_days": 0}), f"topics.{UI_EVENTS}.rows.warm_after_days", "expected at least 1, got 0"),
        (_topic(retention_hours=math.inf), f"topics.{UI_EVENTS}.retention_hours", "expected a finite number, got inf"),
        (_topic(retention_hours=math.nan), f"topics.{UI_EVENTS}.retention_hours", "expected a finite number, got nan"),
        (_topic(retention_hours=0), f"topics.{UI_EVENTS}.retention_hours", "expected at least 0.01, got 0"),
        (_topic(retention_hours=1e9), f"topics.{UI_EVENTS}.retention_hours", "expected at most 1000000, got"),
        (_topic(timestamps="mine"), f"topics.{UI_EVENTS}.timestamps", "expected 'broker' or 'producer', got 'mine'"),
        (
            lambda document: document["dead_letters"].update(timestamps="producer"),
            "dead_letters.timestamps",
            "expected 'broker', because `chimera dlq` relies on one clock, got 'producer'",
        ),
        (_topic(cleanup="compact,delete"), f"topics.{UI_EVENTS}.cleanup", "expected 'delete' or 'compact', got"),
        (_topic(table="a; b"), f"topics.{UI_EVENTS}.table", "expected text that matches"),
        (_topic(batch={"max_rows": 0}), f"topics.{UI_EVENTS}.batch.max_rows", "expected at least 1, got 0"),
        (_topic(family="bench_runs"), f"topics.{UI_EVENTS}.family", "expected one topic a family"),
        (_without("retention_hours"), "topics.chimera.bench_runs.retention_hours", "expected a value"),
        (lambda document: document.update(topics=[]), "topics", "expected a mapping"),
        (lambda document: document.update(topics={}), "topics", "expected a mapping"),
        (lambda document: document["topics"].update(x=3), "topics.x", "expected a mapping, got 3"),
        (lambda document: document["topics"].update({"a b": {}}), "topics.a b.name", "expected text that matches"),
        (lambda document: document.update(defaults=[1]), "defaults", "expected a mapping, got [1]"),
        (lambda document: document.update(version=2), "version", "expected 1, got 2"),
        (lambda document: document.update(topic={}), "topic", "expected version, defaults, dead_letters, topics"),
    ],
    ids=[
        "bound",
        "type",
        "truth for a number",
        "misspelt key",
        "misspelt key of the batch policy",
        "number for a batch policy",
        "cold before warm",
        "misspelt age",
        "no age",
        "for ever",
        "no number",
        "no time",
        "too long",
        "timestamps of nobody",
        "timestamps of workers",
        "cleanup of both kinds",
        "table that is none",
        "nested",
        "two topics of a family",
        "missing",
        "list of topics",
        "no topics",
        "topic that is a number",
        "name",
        "defaults",
        "version",
        "misspelt section",
    ],
)
def test_a_wrong_file_is_explained(edit: Edit, key: str, expected: str, tmp_path: Path) -> None:
    """One line names file, key and expected value."""
    file = _edited(tmp_path, edit)
    with pytest.raises(ConfigError) as caught:
        load_topics(file)
    assert str(caught.value).startswith(f"{file}: {key}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "key", "expected"),
    [
        (_topic(family="ui_event"), f"topics.{UI_EVENTS}.family", "expected one of bench_runs, deployments"),
        (
            _topic(key="session"),
            f"topics.{UI_EVENTS}.key",
            "expected a field of ui_events.v1.avsc with logicalType uuid",
        ),
        (_topic(key="event_type"), f"topics.{UI_EVENTS}.key", "with logicalType uuid, got 'event_type'"),
        (_topic(table="episodes"), "topics.chimera.", "expected one table a family, but "),
        (_without("batch"), "topics.chimera.bench_runs.batch", "expected max_rows, max_bytes and linger_seconds"),
        (lambda document: document["topics"].pop(UI_EVENTS), "topics", "expected a topic of family 'ui_events'"),
        (
            lambda document: document["topics"][STATE].update(state_of="sessions"),
            f"topics.{STATE}.state_of",
            "expected the family of another topic, one of bench_runs, deployments, ",
        ),
        (
            _topic(state_of="episodes"),
            f"topics.{STATE}.state_of",
            f"expected one topic with state_of, but {UI_EVENTS} has it too",
        ),
        (
            lambda document: document["topics"].update({STATE: {"state_of": "ui_events"}}),
            f"topics.{STATE}.cleanup",
            "expected 'compact'",
        ),
    ],
    ids=[
        "family without schema",
        "key that is no field",
        "key that is no uuid",
        "table of another family",
        "no batch policy",
        "schema without topic",
        "state of no family",
        "two topics of state",
        "state that is deleted",
    ],
)
def test_topics_and_schemas_have_to_agree(edit: Edit, key: str, expected: str, tmp_path: Path) -> None:
    """A mismatch between topics.yaml and the schemas is named, with the file."""
    file = _edited(tmp_path, edit)
    with pytest.raises(ConfigError) as caught:
        load_catalog(_settings(file))
    assert str(caught.value).startswith(f"{file}: {key}")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"topics: [", "not YAML"),
        (b"topics: \xff", "not UTF-8"),
        (b"", "topics: expected a mapping"),
        (b"just text", "topics: expected a mapping"),
        (b"version: 1\ntopics: {}\nversion: 1\n", "version: expected once, again in line 3"),
        (b"topics:\n  a: {key: x}\n  b: {key: x,\n    key: y}\n", "key: expected once, again in line 4"),
    ],
    ids=["no YAML", "no UTF-8", "empty", "no mapping", "a key twice", "a key of a topic twice"],
)
def test_a_file_that_is_no_topics_yaml_is_explained(content: bytes, expected: str, tmp_path: Path) -> None:
    """A file that is no topics.yaml at all gives one line."""
    file = tmp_path / "topics.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_topics(file)
    assert str(caught.value).startswith(f"{file}: {expected}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The line names the missing file."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file or directory; expected"):
        load_topics(tmp_path / "nowhere.yaml")


def test_an_unknown_family_is_an_error_that_lists_the_known_ones() -> None:
    """The error lists the known families."""
    with pytest.raises(ConfigError, match=r"no event family 'ui'; expected one of bench_runs, llm_events, ui_events"):
        load_catalog(_settings(ROOT / "topics.yaml")).family("ui")


def test_merged_keys_are_not_repeated_keys(tmp_path: Path) -> None:
    """YAML's merge keys are allowed, and a mapping's own values override merged ones."""
    file = tmp_path / "topics.yaml"
    text = (ROOT / "topics.yaml").read_text(encoding="utf-8")
    merged = "topics:\n  a: &a {partitions: 2, retention_hours: 5}\n  b: {<<: *a, partitions: 3}\n"
    file.write_text(text.partition("topics:\n")[0] + merged, encoding="utf-8")
    assert [(topic.partitions, topic.retention_hours) for topic in load_topics(file)] == [(2, 5), (3, 5)]
