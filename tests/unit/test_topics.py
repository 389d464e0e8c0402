"""The plan: how a cluster differs from topics.yaml, as data."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import TopicSpec
from pipeline.errors import ConfigError
from pipeline.kafka.topics import Action, Cluster, LiveTopic, Setting, plan

FILE = Path("topics.yaml")
SPEC = TopicSpec(
    name="t",
    partitions=4,
    replication=2,
    retention_hours=1,
    max_message_bytes=2048,
    timestamps="broker",
    family="ui_events",
    key="run_id",
)


def _live(spec: TopicSpec, **config: str) -> LiveTopic:
    return LiveTopic(spec.partitions, spec.replication, {**spec.config, "segment.bytes": "1", **config})


def _declared(**values: Any) -> TopicSpec:
    return SPEC.model_copy(update=values)


def test_a_missing_topic_is_created_with_everything() -> None:
    """A new topic's settings are all that is declared of it, with no old value."""
    (change,) = plan([SPEC], Cluster(2, {}), FILE)
    assert change.action is Action.CREATE
    assert change.settings == (
        Setting("partitions", None, "4"),
        Setting("replication", None, "2"),
        Setting("cleanup.policy", None, "delete"),
        Setting("retention.ms", None, "3600000"),
        Setting("max.message.bytes", None, "2048"),
        Setting("message.timestamp.type", None, "LogAppendTime"),
    )
    assert not change.grows


def test_a_topic_as_declared_is_kept() -> None:
    """Nothing differs: nothing is to do, and settings that nobody declares don't count."""
    (change,) = plan([SPEC], Cluster(2, {"t": _live(SPEC)}), FILE)
    assert (change.action, change.settings) == (Action.KEEP, ())


def test_only_what_differs_is_altered() -> None:
    """Old and new value of each differing setting, in the order of the declaration."""
    live = _live(SPEC, **{"retention.ms": "60000", "cleanup.policy": "compact"})
    (change,) = plan([SPEC], Cluster(2, {"t": live}), FILE)
    assert change.action is Action.ALTER
    assert change.settings == (
        Setting("cleanup.policy", "compact", "delete"),
        Setting("retention.ms", "60000", "3600000"),
    )
    assert change.config == {"cleanup.policy": "delete", "retention.ms": "3600000"}
    assert not change.grows


def test_a_compacted_topic_has_no_retention() -> None:
    """Nothing of it is deleted for its age, and what is superseded goes soon."""
    (change,) = plan([_declared(cleanup="compact", timestamps="producer")], Cluster(2, {"t": _live(SPEC)}), FILE)
    assert change.settings == (
        Setting("cleanup.policy", "delete", "compact"),
        Setting("segment.bytes", "1", "16777216"),
        Setting("min.cleanable.dirty.ratio", None, "0.1"),
        Setting("message.timestamp.type", "LogAppendTime", "CreateTime"),
    )


def test_more_partitions_are_told_apart() -> None:
    """Growing is an alteration of its own: no configuration, but keys may move."""
    (change,) = plan([_declared(partitions=6)], Cluster(2, {"t": _live(SPEC)}), FILE)
    assert change.settings == (Setting("partitions", "4", "6"),)
    assert change.grows
    assert change.config == {}


def test_topics_that_are_not_declared_are_left_alone() -> None:
    """A plan speaks of the declared topics alone, in their order."""
    others = {"a": _live(SPEC), "z": _live(SPEC)}
    changes = plan([_declared(name="t2"), SPEC], Cluster(2, others), FILE)
    assert [change.topic.name for change in changes] == ["t2", "t"]


@pytest.mark.parametrize(
    ("declared", "live", "key", "expected"),
    [
        ({"partitions": 3}, SPEC, "partitions", "expected at least 4, as many as the topic has, got 3"),
        ({"replication": 1}, SPEC, "replication", "expected 2, as the topic has, got 1"),
        ({"replication": 3}, SPEC, "replication", "expected 2, as the topic has, got 3"),
        ({"replication": 3}, None, "replication", "expected at most 2, as many as there are brokers, got 3"),
    ],
    ids=["fewer partitions", "fewer replicas", "more replicas", "more replicas than brokers"],
)
def test_what_kafka_cannot_do_is_an_error(
    declared: dict[str, int], live: TopicSpec | None, key: str, expected: str
) -> None:
    """File, topic and key are named, with what is possible, even when other topics could be changed."""
    cluster = Cluster(2, {"t": _live(live)} if live else {})
    with pytest.raises(ConfigError) as caught:
        plan([_declared(name="new"), _declared(**declared)], cluster, FILE)
    assert str(caught.value).startswith(f"topics.yaml: topics.t.{key}: {expected}")
