"""The three ClickHouse roles on a real server: each can do its own work and nothing else."""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from clickhouse_driver import Client
from clickhouse_driver import errors as driver_errors
from confluent_kafka import Producer as KafkaProducer
from support.events import events, settled
from support.processes import Worker, last_word, prepare

from pipeline.catalog import Family, load_catalog
from pipeline.clickhouse.access import load_roles, statements
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.contract import check_tables
from pipeline.clickhouse.coordinates import Source
from pipeline.clickhouse.migrate import migrate
from pipeline.clickhouse.queries import load_queries
from pipeline.clickhouse.session_stats import COLUMNS, TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.clickhouse.ttl import expired_times
from pipeline.columns import Column, Rows
from pipeline.config import ClickHouseSettings, Settings, TopicsSettings, env_name
from pipeline.decode.decoder import Decoder
from pipeline.devstack.clickhouse import ClickHouseServer, ClickHouseUser, users_of
from pipeline.errors import HaltError
from pipeline.kafka.client import client_config
from pipeline.operations.lineage.extents import Extent
from pipeline.operations.lineage.stored import StoredRows
from pipeline.operations.lineage.twins import Twins
from pipeline.operations.storage.cold import query_cold
from pipeline.operations.storage.maintenance import CHECKS, look
from pipeline.operations.storage.maintenance.report import Subject
from pipeline.operations.storage.projections import add_projection, drop_projection
from pipeline.operations.storage.recompress import recompress
from pipeline.operations.storage.retention import apply_plan, make_plans
from pipeline.operations.storage.tables import read_days, stored_tables
from pipeline.producer.encode import Encoder
from pipeline.producer.producer import Producer
from pipeline.rollup.audit import Audit
from pipeline.rollup.horizon import Horizon
from pipeline.rollup.repair import plan, repair

pytestmark = pytest.mark.integration

_DATABASE = "chimera_metrics"
_NOT_ENOUGH_PRIVILEGES, _READONLY, _TOO_MANY_ROWS, _SETTING_CONSTRAINT = 497, 164, 158, 452
_NO_STORAGE = {495, 514}
_QUOTA_EXCEEDED = 201
_TOPICS = TopicsSettings().file
_TABLES = (*(family.table for family in load_catalog(Settings()).families), TABLE)
_ROLES = {role.name: role for role in load_roles(_DATABASE, _TOPICS)}
_WRITER = _ROLES["chimera_writer"]
_SECURITY = ClickHouseUser("security", grants=("GRANT ALL ON *.* WITH GRANT OPTION",))
_NARROW = ClickHouseUser("narrow", "narrow", grants=(f"GRANT SELECT ON {_DATABASE}.*",))
_FRUGAL = ClickHouseUser("frugal", "frugal", grants=(f"GRANT SELECT ON {_DATABASE}.*",), quota={"queries": 3})
_CURTAILED = {  # writers by the grant that each lacks
    grant: replace(_WRITER, name=f"curtailed_{number}", grants=tuple(set(_WRITER.grants) - {grant}))
    for number, grant in enumerate(_WRITER.grants)
}


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """Server with the users of the development stack, migrated by the admin."""
    users = (*users_of([*_ROLES.values(), *_CURTAILED.values()]), _SECURITY, _NARROW, _FRUGAL)
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse"), users=users) as running:
        migrate(_settings(running, "chimera_admin"))
        with Client("127.0.0.1", port=running.port) as default:
            default.execute("CREATE DATABASE other")
            default.execute("CREATE TABLE other.secrets (a String) ENGINE=MergeTree ORDER BY a")
        yield running


@pytest.fixture
def server(migrated: ClickHouseServer) -> ClickHouseServer:
    """Server whose tables are empty: tests run in any order."""
    with Client("127.0.0.1", port=migrated.port) as default:
        for table in _TABLES:
            default.execute(f"TRUNCATE TABLE {_DATABASE}.{table}")
    return migrated


def _settings(server: ClickHouseServer, role: str) -> ClickHouseSettings:
    return ClickHouseSettings.model_validate({"port": server.port, "user": role, "password": role})


def _as(server: ClickHouseServer, role: str) -> Client:
    return Client("127.0.0.1", port=server.port, user=role, password=role, database=_DATABASE)


def _code(client: Client, sql: str) -> int:
    """Error code with which the server refuses a query."""
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
        "INSERT INTO schema_versions (version, md5, script) VALUES (99, 'x', 'x')",
        "CREATE TEMPORARY TABLE mine (a String) ENGINE=URL('http://127.0.0.1:1', 'CSV')",
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
    """Reader and writer can't change tables, read other databases, reach other servers or files, or grant rights."""
    with _as(server, role) as client:
        assert _code(client, sql) in {_NOT_ENOUGH_PRIVILEGES, _READONLY}


def test_an_admin_keeps_the_storage(server: ClickHouseServer) -> None:
    """Retention, tiers, compression and projections need no right that the admin lacks, and no check is refused."""
    settings = _settings(server, "chimera_admin")
    tables = stored_tables(load_catalog(Settings()))
    with connect(settings) as client:
        for retention in make_plans(settings, client, tables):
            apply_plan(settings, client, retention)
        assert not any(each.statements for each in make_plans(settings, client, tables))
        client.execute("INSERT INTO ui_events (ts) VALUES", [(datetime.now(UTC),)])
        today = read_days(client, "ui_events", {})[-1]
        assert recompress(settings, "ui_events", (today.day, today.partition_id, today.rows, today.size))[1]
        done, parts = list(add_projection(settings, "ui_events", "hourly_user_agent"))[-1]
        assert done == parts == 1
        drop_projection(settings, "ui_events", "hourly_user_agent")
        assert query_cold(client, _DATABASE, {"ui_events": ("cold",)}, "SELECT count() AS n FROM ui_events")[0] == ["n"]
        with Client("127.0.0.1", port=server.port) as default:
            default.execute("SYSTEM FLUSH LOGS query_log")  # a server without queries has no such table
        sections = list(look(Subject(settings, client, tables), CHECKS))
    assert {section.check.name: section.unavailable for section in sections if section.unavailable} == {}


def test_a_reader_runs_every_specified_query_and_changes_nothing(server: ClickHouseServer) -> None:
    """A reader may narrow its limits, but not widen them."""
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
    role = _ROLES["chimera_reader"]
    assert quota == [(role.name, role.quota["queries"], role.quota["read_rows"])]


def test_a_reader_may_verify(server: ClickHouseServer) -> None:
    """The look-ups of `chimera verify` need no more than a reader's rights and limits."""
    family = load_catalog(Settings()).family("bench_runs")
    rows = Decoder(family).decode([Encoder(family).encode(event).value for event in events(family.name, 8)])
    source = Source(UUID(int=15), 0)
    sink = Sink(_settings(server, "chimera_writer"))
    sink.insert(family.table, {**rows.columns, **source.columns(rows.positions)}, "verified", lambda: None)
    with _as(server, "chimera_reader") as client:
        stored = StoredRows(client, family.table, [Extent(source, 0, 8)])
        (stretch,) = stored.survey().stretches
        (presence,) = stored.presences([stretch])
        assert presence.present.all()
        assert stored.doubled(stretch, np.zeros(1, np.int64), 5) == []
        assert stored.beyond({0: 8}) == {}
        assert sum(stored.hours().values()) == 8
        assert Twins(client, family).newer(rows).all()
        assert not Twins(client, family).without_coordinates(rows).any()
        assert not expired_times(client, family.table, "ts", np.asarray(rows.columns["ts"])).any()


@pytest.mark.parametrize(
    "engine",
    [
        "URL('http://127.0.0.1:1', 'CSV')",
        "File(CSV)",
        "MySQL('127.0.0.1:1', 'd', 't', 'u', 'p')",
        "Merge('other', '.*')",
        "Buffer('other', 'secrets', 1, 1, 1, 1, 1, 1, 1)",
        "Executable('x', 'CSV')",
    ],
    ids=lambda engine: engine.partition("(")[0],
)
def test_an_admin_creates_no_table_that_reaches_out(server: ClickHouseServer, engine: str) -> None:
    """The server refuses tables that read other servers, files, other databases or programs."""
    with _as(server, "chimera_admin") as client:
        assert _code(client, f"CREATE TABLE mine (a String) ENGINE={engine}") == _NOT_ENOUGH_PRIVILEGES


def test_a_quota_refuses_further_queries(server: ClickHouseServer) -> None:
    """The development server applies quotas as roles declare them, here three queries in an hour."""
    with _as(server, _FRUGAL.name) as client:
        for _ in range(_FRUGAL.quota["queries"]):
            client.execute("SELECT count() FROM episodes")
        assert _code(client, "SELECT count() FROM episodes") == _QUOTA_EXCEEDED


def _rows(family: Family) -> Rows:
    encoder = Encoder(family)
    return Decoder(family).decode([encoder.encode(event).value for event in events(family.name, 3)])


def _session(hour: int) -> dict[str, Column]:
    """Return one row of session_stats; an hour that has expired would be gone."""
    values = {name: np.ones(1, np.float32 if kind == "Float32" else np.int64) for name, kind in COLUMNS.items()}
    return {**values, "hour": np.full(1, hour, np.uint32), "session_id": np.zeros(1, "V16")}


def _do_a_workers_work(server: ClickHouseServer, role: str) -> None:
    """Send every kind of query that a running worker sends."""
    token = uuid4().hex
    with closing(Sink(_settings(server, role))) as sink:
        for family in load_catalog(Settings()).families:
            rows = _rows(family)
            columns = {**rows.columns, **Source(uuid4(), 0).columns(rows.positions)}
            sink.insert(family.table, columns, token)
            assert not sink.missing_rows(family.table, family.key, columns, tried=True).any()
            assert sink.refusal_code(family.table, columns) is None
        hour = int(datetime.now(UTC).timestamp()) // 3600 * 3600
        sink.insert(TABLE, _session(hour), token)
        assert sink.stored_sessions(TABLE, hour) == {bytes(16)}


def test_a_writer_does_a_workers_work(server: ClickHouseServer) -> None:
    """The writer's grants are enough for every query of a worker."""
    _do_a_workers_work(server, _WRITER.name)


@pytest.mark.parametrize("grant", [grant for grant in _WRITER.grants if "SYNC REPLICA" not in grant])
def test_a_writer_needs_each_of_its_grants(server: ClickHouseServer, grant: str) -> None:
    """Without any one grant, the server refuses a query of the worker; tables here aren't replicated."""
    with pytest.raises(driver_errors.ServerException) as refusal:
        _do_a_workers_work(server, _CURTAILED[grant].name)
    assert refusal.value.code == _NOT_ENOUGH_PRIVILEGES


def test_an_admin_repairs_the_rollup(server: ClickHouseServer) -> None:
    """The admin's grants are enough for `chimera rollup repair`."""
    family, settings = load_catalog(Settings()).family("ui_events"), _settings(server, "chimera_admin")
    columns = _rows(family).columns
    day = datetime.fromtimestamp(int(np.asarray(columns["ts"])[0]) / 1000, UTC).date()
    horizon = Horizon(closed_before=math.inf)
    Sink(settings).insert(family.table, columns, "events to repair from")
    with connect(settings) as client:
        check_tables(settings, [family])
        assert plan(Audit(client, family.table), horizon, day).changes
        repair(settings, family.table, horizon, day)
        assert not plan(Audit(client, family.table), horizon, day).changes


def test_an_admin_repairs(server: ClickHouseServer) -> None:
    """The admin can replace a damaged day from a staging table, but not touch other databases."""
    with _as(server, "chimera_admin") as client:
        client.execute("CREATE TABLE staging AS watcher_runs")
        client.execute("INSERT INTO staging (ts, status) VALUES ('2026-01-31 00:00:00', 'valid')")
        client.execute("ALTER TABLE watcher_runs REPLACE PARTITION '2026-01-31' FROM staging")
        assert client.execute("SELECT count() FROM watcher_runs") == [(1,)]
        client.execute("ALTER TABLE watcher_runs DROP PARTITION '2026-01-31'")
        client.execute("DROP TABLE staging")
        client.execute("CREATE VIEW days AS SELECT DISTINCT toDate(ts) AS day FROM watcher_runs")
        client.execute("CREATE MATERIALIZED VIEW fed ENGINE=SummingMergeTree ORDER BY day AS SELECT * FROM days")
        client.execute("DROP VIEW fed")
        client.execute("DROP VIEW days")
        client.execute("SELECT max(max_block_number) FROM system.parts WHERE table = 'watcher_runs'")
        for sql in ("DROP TABLE other.secrets", "SELECT * FROM other.secrets", "CREATE USER mine", "SYSTEM SHUTDOWN"):
            assert _code(client, sql) == _NOT_ENOUGH_PRIVILEGES
        assert migrate(_settings(server, "chimera_admin")) == ()


def _as_role(environ: dict[str, str], server: ClickHouseServer, role: str) -> dict[str, str]:
    login = {"port": str(server.port), "user": role, "password": role, "database": _DATABASE}
    return environ | {env_name("clickhouse", key): value for key, value in login.items()}


def test_a_worker_runs_with_the_writers_grants(
    settings: Settings, environ: dict[str, str], server: ClickHouseServer, tmp_path: Path
) -> None:
    """The worker starts, stores rows, rejects records, and finds rows that ClickHouse refuses for their data."""
    family = prepare(settings).family("ui_events")
    with Producer(settings) as producer:
        for event in events("ui_events", 200):
            producer.send("ui_events", event)
    careless = KafkaProducer(client_config(settings.kafka))
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
    """The worker names the missing grant and stops before it consumes: waiting would not bring it."""
    prepare(settings)
    with Producer(settings) as producer:
        for event in events("watcher_runs", 1):
            producer.send("watcher_runs", event)
    with Worker(_as_role(environ, server, "narrow"), tmp_path / "log") as worker:
        line = last_word(worker, HaltError.exit_code)
        assert not worker.lines("consuming")
    assert f"ClickHouse at 127.0.0.1:{server.port}: " in line
    assert "INSERT" in line


@pytest.mark.parametrize("statement", list(statements(_DATABASE, _TOPICS)))
def test_the_sql_is_understood(server: ClickHouseServer, statement: str) -> None:
    """The server parses each statement; it fails only because the development server stores no roles."""
    with Client("127.0.0.1", port=server.port, user="security") as client:
        formatted: Any = client.execute("SELECT formatQuery(%(sql)s)", {"sql": statement})
        assert formatted
        assert _code(client, statement) in _NO_STORAGE
