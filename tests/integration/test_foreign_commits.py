"""Committed offsets that are of another topic: of another cluster's, or of an earlier one of the same name."""

from pathlib import Path

import pytest
from support.events import events, publish, settled
from support.kafka_topic import Topic
from support.processes import Worker, last_word, prepare

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.config import Settings, env_name
from pipeline.errors import HaltError
from pipeline.kafka.topics import TopicAdmin
from pipeline.producer.encode import Encoder
from pipeline.transport.commit_metadata import Ranges

pytestmark = pytest.mark.integration

_EVENTS = 20
_ELSEWHERE = "Kq3mXo5pQ0uWm0n0aD2x7A"  # id of a topic in another cluster


@pytest.fixture
def family(settings: Settings) -> Family:
    """A family whose topic has records and whose table is empty."""
    family = prepare(settings).family("ui_events")
    _publish(settings, family)
    return family


@pytest.fixture
def topic(settings: Settings, family: Family) -> Topic:
    """The family's topic."""
    return Topic.existing(settings.kafka, family.topic.name, partitions=2)


def test_a_group_that_was_copied_from_another_cluster_is_refused_on_a_full_table(
    settings: Settings, environ: dict[str, str], family: Family, topic: Topic, tmp_path: Path
) -> None:
    """The message names the other topic's id, and the setting that allows it; with that, the log is consumed."""
    _store(settings, environ, family, tmp_path / "first")
    topic.commit(5, str(Ranges(_ELSEWHERE, (2, 3))))  # an offset that was translated, beside ends that weren't
    with Worker(environ, tmp_path / "refused") as worker:
        line = last_word(worker, HaltError.exit_code)
    assert f"group {settings.kafka.group_id}, {topic.name}-0: the group has an offset of a topic with" in line
    assert _ELSEWHERE in line
    assert "CHIMERA_WORKER__ALLOW_FRESH_GROUP=true" in line
    assert _rows(settings) == _EVENTS
    _store(settings, {**environ, env_name("worker", "allow_fresh_group"): "true"}, family, tmp_path / "allowed")
    assert _rows(settings) == _EVENTS, "here it is the same topic, whose tokens ClickHouse knows"
    _store(settings, environ, family, tmp_path / "as usual", records=0)


def test_such_a_group_fills_an_empty_table(
    settings: Settings, environ: dict[str, str], family: Family, topic: Topic, tmp_path: Path
) -> None:
    """Nothing can be stored twice."""
    topic.commit(5, str(Ranges(_ELSEWHERE)))
    _store(settings, environ, family, tmp_path / "log")
    assert _rows(settings) == _EVENTS


def test_a_topic_that_is_created_anew_under_a_worker_is_told_from_that(
    settings: Settings, environ: dict[str, str], family: Family, topic: Topic, tmp_path: Path
) -> None:
    """The worker has seen the earlier topic: it stores the new records, and so does its successor."""
    before = _id(settings, topic)
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, _EVENTS)
        topic.create_anew()
        _publish(settings, family)
        settled(worker, settings, family, 2 * _EVENTS)
        assert worker.terminate() == 0
    assert _id(settings, topic) != before
    _publish(settings, family)
    _store(settings, environ, family, tmp_path / "successor")
    assert _rows(settings) == 3 * _EVENTS


def _store(settings: Settings, environ: dict[str, str], family: Family, log: Path, records: int = _EVENTS) -> None:
    with Worker(environ, log) as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, records)
        assert worker.terminate() == 0


def _publish(settings: Settings, family: Family) -> None:
    values = [Encoder(family).encode(event).value for event in events(family.name, _EVENTS)]
    publish(settings, family.topic.name, values)


def _id(settings: Settings, topic: Topic) -> str:
    return TopicAdmin(settings.kafka).ids([topic.name])[topic.name]


def _rows(settings: Settings) -> int:
    with connect(settings.clickhouse) as client:
        return int(client.execute("SELECT count() FROM ui_events")[0][0])
