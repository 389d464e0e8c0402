"""A group without commits and a table with rows: the worker refuses to store everything again."""

from pathlib import Path

import pytest
from support.events import events, publish, settled
from support.processes import Worker, prepare

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.config import Settings, env_name
from pipeline.devstack.ports import free_port
from pipeline.errors import HaltError
from pipeline.producer.encode import Encoder
from pipeline.worker.preflight import check_group

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
    """Two workers may start at once on an empty table; another group is refused, unless a setting allows it."""
    second = {**environ, env_name("worker", "web_port"): str(free_port())}
    with Worker(environ, tmp_path / "log") as worker, Worker(second, tmp_path / "second") as other:
        for each in (worker, other):
            each.wait_until_consuming()
        worker.wait_for(lambda: _rows(settings) == _EVENTS, "everything stored")
        assert worker.terminate() == other.terminate() == 0
    own_group = settings.kafka.model_copy(update={"group_id": f"{settings.kafka.group_id}-other"})
    settings = settings.model_copy(update={"kafka": own_group})
    environ = {**environ, env_name("kafka", "group_id"): own_group.group_id}
    with Worker(environ, tmp_path / "log") as worker:
        assert worker.wait() == HaltError.exit_code
        (line,) = worker.lines("critical")
    assert f"-other has committed no offset of {family.topic.name}, whose {_EVENTS} records would be stored in " in line
    assert "CHIMERA_WORKER__ALLOW_FRESH_GROUP=true" in line
    assert _rows(settings) == _EVENTS
    with Worker({**environ, env_name("worker", "allow_fresh_group"): "true"}, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, _EVENTS)


def test_tables_without_rows_and_topics_without_records_are_no_reason(settings: Settings, family: Family) -> None:
    """The worker starts with a full topic and an empty table, and with rows and an empty topic."""
    with connect(settings.clickhouse) as client:
        client.execute("INSERT INTO episodes (run_id) VALUES", [{"run_id": "5ec4e700-5ec4-4e70-8ec4-e7005ec4e700"}])
        check_group(settings, prepare(settings))
        client.execute(f"INSERT INTO {family.table} (metadata) VALUES", [{"metadata": "{}"}])
    with pytest.raises(HaltError, match=family.topic.name):
        check_group(settings, prepare(settings))


def _rows(settings: Settings) -> int:
    with connect(settings.clickhouse) as client:
        return int(client.execute("SELECT count() FROM ui_events")[0][0])
