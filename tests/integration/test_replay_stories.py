"""The worked stories of docs/replay.md, each as it is told there."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree

import orjson
import pytest
from support.commands import Chimera
from support.events import events, rows
from support.replays import UiEvents
from support.schema_registry import RegistryServer

from pipeline.clickhouse.client import connect
from pipeline.clickhouse.migrate import migrate
from pipeline.config import env_name
from pipeline.kafka.registry import SchemaRegistry
from pipeline.producer.encode import Encoder
from pipeline.schema.versions import load_schemas

pytestmark = pytest.mark.integration

_DAY = "2026-01-31"
_ROWS = 60


def test_a_table_dropped_by_mistake(log: UiEvents, replay: Chimera) -> None:
    """It is made like the one that `chimera migrate` makes in another database, and filled from the log."""
    log.produce(_ROWS)
    replay("--execute")
    ours, other = log.settings.clickhouse, f"{log.settings.clickhouse.database}_pattern"
    with log.client() as client:
        client.execute("DROP TABLE ui_events SYNC")
        assert "missing" in replay("--execute").stderr
        migrate(ours.model_copy(update={"database": other}))
        client.execute(f"CREATE TABLE ui_events AS {other}.ui_events")
        client.execute(f"DROP DATABASE {other} SYNC")
    assert replay("--execute", "--json").facts["inserted"] == _ROWS
    assert log.complete(rows(log.settings, "ui_events"))


def test_a_day_loaded_with_a_wrong_rule(log: UiEvents, replay: Chimera) -> None:
    """A look at the right rows in another table comes first."""
    log.produce(_ROWS)
    replay("--execute")
    with log.client() as client:
        client.execute(
            "ALTER TABLE ui_events UPDATE latency_ms = latency_ms * 1000 WHERE 1 SETTINGS mutations_sync = 2"
        )
        replay("--into", "ui_events_right", "--execute")
        assert client.execute(
            "SELECT count() FROM ui_events AS w JOIN ui_events_right AS r USING (session_id, ts) "
            "WHERE w.latency_ms != r.latency_ms"
        ) > [(0,)]
    assert replay("--day", _DAY, "--execute", "--json").facts["inserted"] == _ROWS
    assert log.complete(rows(log.settings, "ui_events"))


def test_a_partition_lost_with_a_disk(log: UiEvents, replay: Chimera) -> None:
    """The day is empty, and a fill brings all of it back."""
    log.produce(_ROWS)
    replay("--execute")
    with log.client() as client:
        client.execute(f"ALTER TABLE ui_events DROP PARTITION '{_DAY}'")
    assert log.stored() == (0, 0)
    assert replay("--execute", "--json").facts["days"] == {_DAY: _ROWS}
    assert log.complete(rows(log.settings, "ui_events"))


def test_a_new_column_filled_from_old_records(
    log: UiEvents, replay: Chimera, schema_registry: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Producers wrote a field before the table had a column for it; now it has one."""
    newer = _with_app_version(log.settings.schemas.directory, tmp_path / "newer")
    monkeypatch.setenv(env_name("registry", "url"), schema_registry.url)
    schema = load_schemas(newer)["ui_events"][-1]
    registry = SchemaRegistry(log.settings.registry.model_copy(update={"url": schema_registry.url}))
    producer = Encoder(replace(log.family, schemas=(schema,)), registry.schema_id(log.topic.name, schema))
    log.send([producer.encode(event | {"app_version": "4.2.0"}).value for event in events("ui_events", _ROWS)])
    log.commit()
    assert replay("--execute", "--json").facts["inserted"] == _ROWS
    with connect(log.settings.clickhouse) as client:
        client.execute("ALTER TABLE ui_events ADD COLUMN app_version LowCardinality(String) DEFAULT 'unknown'")
        monkeypatch.setenv(env_name("schemas", "directory"), str(newer))
        assert replay("--day", _DAY, "--execute", "--json").facts["inserted"] == _ROWS
        assert client.execute("SELECT app_version, count() FROM ui_events GROUP BY ALL") == [("4.2.0", _ROWS)]


def _with_app_version(schemas: Path, directory: Path) -> Path:
    """Copy the schemas, and add a version of ui_events with one more field."""
    copytree(schemas, directory)
    raw = orjson.loads((directory / "ui_events.v1.avsc").read_bytes())
    raw["fields"].append(
        {
            "name": "app_version",
            "type": "string",
            "doc": "Version of the overlay.",
            "pattern": r"^[0-9a-z.]{1,20}$",
            "default": "unknown",
            "privacy": "keep",
        }
    )
    (directory / "ui_events.v2.avsc").write_bytes(orjson.dumps(raw))
    return directory
