"""A group without commits and a table with rows: the worker refuses to store everything again."""

from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions
from support.events import events, publish, settled
from support.kafka_requests import answer_to
from support.kafka_topic import Topic
from support.processes import Worker, last_word, prepare

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.config import Settings, env_name
from pipeline.devstack.ports import free_port
from pipeline.errors import HaltError
from pipeline.kafka.client import client_config
from pipeline.producer.encode import Encoder
from pipeline.worker.fresh_group import check_group

pytestmark = pytest.mark.integration

_EVENTS = 20


@pytest.fixture
def family(settings: Settings) -> Family:
    """A family whose topic has records and whose table is empty."""
    family = prepare(settings).family("ui_events")
    publish(
        settings, family.topic.name, [Encoder(family).encode(event).value for event in events(family.name, _EVENTS)]
    )
    return family


def test_a_fresh_group_is_refused_where_its_records_would_be_stored_again(
    settings: Settings, environ: dict[str, str], family: Family, tmp_path: Path
) -> None:
    """Two workers may start at once on an empty table; another group is refused, unless a setting allows it.

    The refused worker says why at /ready until a signal ends it.
    """
    second = {**environ, env_name("worker", "web_port"): str(free_port())}
    with Worker(environ, tmp_path / "log") as worker, Worker(second, tmp_path / "second") as other:
        for each in (worker, other):
            each.wait_until_consuming()
        worker.wait_for(lambda: _rows(settings) == _EVENTS, "everything stored")
        assert worker.terminate() == other.terminate() == 0
    own_group = settings.kafka.model_copy(update={"group_id": f"{settings.kafka.group_id}-other"})
    settings = settings.model_copy(update={"kafka": own_group})
    environ = {**environ, env_name("kafka", "group_id"): own_group.group_id}
    with Worker({**environ, env_name("worker", "halt_seconds"): "600"}, tmp_path / "log") as worker:
        worker.wait_for(lambda: _said(worker).startswith("halted: "), "the reason at /ready")
        assert worker.terminate() == HaltError.exit_code
        (line,) = worker.lines("critical")
    assert f"-other has committed no offset of {family.topic.name}, whose {_EVENTS} records would be stored in " in line
    assert "CHIMERA_WORKER__ALLOW_FRESH_GROUP=true" in line
    assert _rows(settings) == _EVENTS
    with Worker({**environ, env_name("worker", "allow_fresh_group"): "true"}, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, _EVENTS)


def _said(worker: Worker) -> str:
    """Return what /ready says; nothing while the port isn't open."""
    try:
        return worker.why_not_ready
    except OSError:
        return ""


def test_tables_without_rows_and_topics_without_records_are_no_reason(settings: Settings, family: Family) -> None:
    """The worker starts with a full topic and an empty table, and with rows and an empty topic."""
    with connect(settings.clickhouse) as client:
        client.execute("INSERT INTO episodes (run_id) VALUES", [{"run_id": "5ec4e700-5ec4-4e70-8ec4-e7005ec4e700"}])
        check_group(settings, prepare(settings))
        client.execute(f"INSERT INTO {family.table} (metadata) VALUES", [{"metadata": "{}"}])
    with pytest.raises(HaltError, match=family.topic.name):
        check_group(settings, prepare(settings))


def test_a_partition_whose_commit_is_gone_is_not_stored_again(
    settings: Settings, environ: dict[str, str], family: Family, tmp_path: Path
) -> None:
    """Other partitions have commits, and the log begins at 0, as a new partition's; but its first rows are stored."""
    _store(settings, environ, family, tmp_path / "first", _EVENTS)
    own_group = settings.kafka.model_copy(update={"group_id": f"{settings.kafka.group_id}-other"})
    Topic.existing(own_group, family.topic.name, partitions=2).commit(0, partition=1)
    with Worker({**environ, env_name("kafka", "group_id"): own_group.group_id}, tmp_path / "log") as worker:
        line = last_word(worker, HaltError.exit_code)
    assert f"{family.topic.name}-0: the group has committed no offset, the log's first rows are in ui_events" in line
    assert _rows(settings) == _EVENTS


def test_a_partition_that_was_added_is_a_fresh_start(
    settings: Settings, environ: dict[str, str], family: Family, tmp_path: Path
) -> None:
    """Its log begins at 0, and its records are in no table."""
    _store(settings, environ, family, tmp_path / "first", _EVENTS)
    admin, name = AdminClient({**client_config(settings.kafka)}), family.topic.name
    answer_to(lambda: admin.create_partitions([NewPartitions(name, 3)])[name])
    producer = Producer(client_config(settings.kafka))
    for event in events(family.name, 2 * _EVENTS)[_EVENTS:]:
        producer.produce(name, Encoder(family).encode(event).value, partition=2)
    assert producer.flush(30) == 0
    _store(settings, environ, family, tmp_path / "log", _EVENTS)
    assert _rows(settings) == 2 * _EVENTS


def _store(settings: Settings, environ: dict[str, str], family: Family, log: Path, records: int) -> None:
    with Worker(environ, log) as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, records)
        assert worker.terminate() == 0


def _rows(settings: Settings) -> int:
    with connect(settings.clickhouse) as client:
        return int(client.execute("SELECT count() FROM ui_events")[0][0])
