"""Plan of the changes from a cluster to topics.yaml."""

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
    """A new topic gets all declared settings; none has an old value."""
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
    """A topic is kept if nothing differs; undeclared settings don't count."""
    (change,) = plan([SPEC], Cluster(2, {"t": _live(SPEC)}), FILE)
    assert (change.action, change.settings) == (Action.KEEP, ())


def test_only_what_differs_is_altered() -> None:
    """The change lists old and new value of each differing setting, in the order of the declaration."""
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
    """Records of a compacted topic are never deleted for their age, and compaction removes old values soon."""
    (change,) = plan([_declared(cleanup="compact", timestamps="producer")], Cluster(2, {"t": _live(SPEC)}), FILE)
    assert change.settings == (
        Setting("cleanup.policy", "delete", "compact"),
        Setting("segment.bytes", "1", "16777216"),
        Setting("min.cleanable.dirty.ratio", None, "0.1"),
        Setting("message.timestamp.type", "LogAppendTime", "CreateTime"),
    )


def test_more_partitions_are_a_change_of_their_own() -> None:
    """More partitions change no configuration, but keys may move."""
    (change,) = plan([_declared(partitions=6)], Cluster(2, {"t": _live(SPEC)}), FILE)
    assert change.settings == (Setting("partitions", "4", "6"),)
    assert change.grows
    assert change.config == {}


def test_topics_that_are_not_declared_are_left_alone() -> None:
    """A plan covers the declared topics only, in their order."""
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
def test_an_impossible_change_is_an_error(
    declared: dict[str, int], live: TopicSpec | None, key: str, expected: str
) -> None:
    """The message names file, topic, key and the possible values, even if other topics could be changed."""
    cluster = Cluster(2, {"t": _live(live)} if live else {})
    with pytest.raises(ConfigError) as caught:
        plan([_declared(name="new"), _declared(**declared)], cluster, FILE)
    assert str(caught.value).startswith(f"topics.yaml: topics.t.{key}: {expected}")
