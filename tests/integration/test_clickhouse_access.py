"""The three roles of ClickHouse on a real server: each can do what it is for, and is refused all else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_driver import Client
from clickhouse_driver import errors as driver_errors
from confluent_kafka import Producer as KafkaProducer
from events import events, settled
from processes import Worker, last_word, prepare

from pipeline.access import load_roles, statements
from pipeline.config import ClickHouseSettings, Settings, env_name
from pipeline.devstack.clickhouse import ClickHouseServer, ClickHouseUser, users_of
from pipeline.errors import HaltError
from pipeline.migrate import migrate
from pipeline.producer import Producer
from pipeline.queries import load_queries

pytestmark = pytest.mark.integration

_DATABASE = "chimera_metrics"
_NOT_ENOUGH_PRIVILEGES, _READONLY, _TOO_MANY_ROWS, _SETTING_CONSTRAINT = 497, 164, 158, 452
_NO_STORAGE = {495, 514}
_SECURITY = ClickHouseUser("security", grants=("GRANT ALL ON *.* WITH GRANT OPTION",))
_NARROW = ClickHouseUser("narrow", "narrow", grants=(f"GRANT SELECT ON {_DATABASE}.*",))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """A server with the users of the development stack, migrated by the one who is to do that."""
    users = (*users_of(load_roles(_DATABASE)), _SECURITY, _NARROW)
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse"), users=users) as running:
        migrate(_settings(running, "chimera_admin"))
        with Client("127.0.0.1", port=running.port) as default:
            default.execute("CREATE DATABASE other")
            default.execute("CREATE TABLE other.secrets (a String) ENGINE=MergeTree ORDER BY a")
        yield running


def _settings(server: ClickHouseServer, role: str) -> ClickHouseSettings:
    return ClickHouseSettings.model_validate({"port": server.port, "user": role, "password": role})


def _as(server: ClickHouseServer, role: str) -> Client:
    return Client("127.0.0.1", port=server.port, user=role, password=role, database=_DATABASE)


def _code(client: Client, sql: str) -> int:
    """The error code that it is refused with."""
    with pytest.raises(driver_errors.ServerException) as refusal:
        client.execute(sql)
    return int(refusal.value.code)


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE ui_events",
        "DROP DATABASE chimera_metrics",
        "ALTER TABLE ui_events ADD COLUMN x String",
        "ALTER TABLE ui_events DELETE WHERE 1",
        "ALTER TABLE ui_events MODIFY SETTING non_replicated_deduplication_window = 0",
        "ALTER TABLE ui_events DROP PARTITION '2026-01-31'",
        "TRUNCATE TABLE ui_events",
        "OPTIMIZE TABLE ui_events FINAL",
        "CREATE TABLE mine (a String) ENGINE=MergeTree ORDER BY a",
        "CREATE DATABASE mine",
        "CREATE FUNCTION mine AS x -> x",
        "CREATE USER mine",
        "CREATE ROLE mine",
        "GRANT SELECT ON chimera_metrics.* TO narrow",
        "SELECT * FROM other.secrets",
        "INSERT INTO other.secrets VALUES ('a')",
        "SELECT * FROM system.processes",
        "SELECT * FROM system.users",
        "SELECT * FROM url('http://127.0.0.1:1', 'CSV', 'a String')",
        "SELECT * FROM file('x', 'CSV', 'a String')",
        "SYSTEM SHUTDOWN",
        "KILL QUERY WHERE 1",
    ],
)
@pytest.mark.parametrize("role", ["chimera_reader", "chimera_writer"])
def test_reader_and_writer_are_refused(server: ClickHouseServer, role: str, sql: str) -> None:
    """Neither changes tables, sees other databases, reaches out, or gives rights."""
    with _as(server, role) as client:
        assert _code(client, sql) in {_NOT_ENOUGH_PRIVILEGES, _READONLY}


def test_a_reader_asks_every_specified_query_and_changes_nothing(server: ClickHouseServer) -> None:
    """Within its limits, which it may make narrower and not wider."""
    with _as(server, "chimera_reader") as client:
        for query in load_queries().values():
            if query.refused is None:
                client.execute(query.sql)
        assert _code(client, "INSERT INTO watcher_runs (status) VALUES ('valid')") in {
            _NOT_ENOUGH_PRIVILEGES,
            _READONLY,
        }
        client.execute("SELECT 1 SETTINGS max_execution_time = 5")
        for wider in ("max_execution_time = 301", "max_execution_time = 0", "max_memory_usage = 0", "priority = 1"):
            assert _code(client, f"SELECT 1 SETTINGS {wider}") == _SETTING_CONSTRAINT
        assert _code(client, "SELECT count() FROM numbers(20000000000) WHERE NOT ignore(number)") == _TOO_MANY_ROWS
        quota = client.execute("SELECT quota_name, max_queries, max_read_rows FROM system.quota_usage")
    role = next(role for role in load_roles(_DATABASE) if role.name == "chimera_reader")
    assert quota == [(role.name, role.quota["queries"], role.quota["read_rows"])]


def test_an_admin_repairs(server: ClickHouseServer) -> None:
    """With a staging table in the database, whose day takes the place of the damaged one; not in other databases."""
    with _as(server, "chimera_admin") as client:
        client.execute("CREATE TABLE staging AS watcher_runs")
        client.execute("INSERT INTO staging (ts, status) VALUES ('2026-01-31 00:00:00', 'valid')")
        client.execute("ALTER TABLE watcher_runs REPLACE PARTITION '2026-01-31' FROM staging")
        assert client.execute("SELECT count() FROM watcher_runs") == [(1,)]
        client.execute("ALTER TABLE watcher_runs DROP PARTITION '2026-01-31'")
        client.execute("DROP TABLE staging")
        client.execute("SELECT max(max_block_number) FROM system.parts WHERE table = 'watcher_runs'")
        for sql in ("DROP TABLE other.secrets", "SELECT * FROM other.secrets", "CREATE USER mine", "SYSTEM SHUTDOWN"):
            assert _code(client, sql) == _NOT_ENOUGH_PRIVILEGES
        assert migrate(_settings(server, "chimera_admin")) == ()


def _as_role(environ: dict[str, str], server: ClickHouseServer, role: str) -> dict[str, str]:
    login = {"port": str(server.port), "user": role, "password": role, "database": _DATABASE}
    return environ | {env_name("clickhouse", key): value for key, value in login.items()}


def test_a_worker_needs_no_more_than_the_writer_may(
    settings: Settings, environ: dict[str, str], server: ClickHouseServer, tmp_path: Path
) -> None:
    """It starts, stores, rejects, and finds the rows that ClickHouse refuses for their data."""
    family = prepare(settings).family("ui_events")
    with Producer(settings) as producer:
        for event in events("ui_events", 200):
            producer.send("ui_events", event)
    careless = KafkaProducer(settings.kafka.client)
    careless.produce(family.topic.name, b"neither framing")
    assert careless.flush(30) == 0
    with _as(server, "chimera_admin") as admin:
        admin.execute("ALTER TABLE ui_events ADD CONSTRAINT fast CHECK latency_ms < 600")
        with Worker(_as_role(environ, server, "chimera_writer"), tmp_path / "log") as worker:
            worker.wait_until_consuming()
            settled(worker, settings, family, 201)
            rejected = worker.metric("chimera_records_rejected_total", reason="refused_by_clickhouse")
            stored = worker.metric("chimera_rows_inserted_total")
        assert rejected == sum(event["latency_ms"] >= 600 for event in events("ui_events", 200)) > 0
        assert admin.execute("SELECT count() FROM ui_events") == [(stored,)]
        admin.execute("ALTER TABLE ui_events DROP CONSTRAINT fast")


def test_a_missing_grant_is_one_line(
    settings: Settings, environ: dict[str, str], server: ClickHouseServer, tmp_path: Path
) -> None:
    """The worker says which, and stops: it would never be given by waiting."""
    prepare(settings)
    with Producer(settings) as producer:
        for event in events("watcher_runs", 1):
            producer.send("watcher_runs", event)
    with Worker(_as_role(environ, server, "narrow"), tmp_path / "log") as worker:
        line = last_word(worker, HaltError.exit_code)
    assert f"ClickHouse at 127.0.0.1:{server.port}: " in line
    assert "INSERT" in line


@pytest.mark.parametrize("statement", statements(_DATABASE))
def test_the_sql_is_understood(server: ClickHouseServer, statement: str) -> None:
    """A server of this version takes it up to the point that the development server keeps no roles."""
    with Client("127.0.0.1", port=server.port, user="security") as client:
        formatted: Any = client.execute("SELECT formatQuery(%(sql)s)", {"sql": statement})
        assert formatted
        assert _code(client, statement) in _NO_STORAGE
