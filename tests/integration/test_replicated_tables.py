"""Replicated tables: two ClickHouse servers with a ZooKeeper, used as an operator uses them.

All tests share the servers and one database; the tables are empty at the beginning of each test.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.commands import Chimera
from support.events import rows, settled
from support.ingested import ingest as store
from support.ingesting import ROWS, batch_of, ingest, values
from support.processes import Worker, eventually
from support.replays import UiEvents, close_hours
from support.replication import engine
from support.replication.replicas import CLUSTER, DATABASE, Replica, Replicas

from pipeline.clickhouse.client import connect
from pipeline.clickhouse.likeness import create_like
from pipeline.clickhouse.migrate import MIGRATIONS
from pipeline.config import Settings, env_name
from pipeline.devstack.ports import free_port

pytestmark = pytest.mark.integration

_DAY = "2026-01-31"
_EVENTS = 400
_DELETE = "ALTER TABLE ui_events DELETE WHERE"
_FACTS = "SELECT count(), uniqExact(_topic_id, _partition, _offset) FROM ui_events"


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """The two servers."""
    if not engine.is_known():
        pytest.skip(f"the engine of the installed wheel isn't that of {engine.BUILD}")
    with Replicas(tmp_path_factory.mktemp("replicas")) as servers:
        yield servers


@pytest.fixture
def environ(environ: dict[str, str], replicas: Replicas) -> Iterator[dict[str, str]]:
    """Environment of a worker that uses the first server, and the broker of all tests."""
    for server in replicas:
        server.start()
    yield environ | {
        env_name("clickhouse", "port"): str(replicas.first.port),
        env_name("clickhouse", "database"): DATABASE,
        env_name("clickhouse", "engine_prefix"): "Replicated",
        env_name("clickhouse", "cluster"): CLUSTER,
        env_name("kafka", "session_timeout_seconds"): "3",
        env_name("kafka", "heartbeat_interval_seconds"): "0.5",
    }
    for server in replicas:
        server.start()
        server.query("SYSTEM START FETCHES")
    filled = f"SELECT name FROM system.tables WHERE database = '{DATABASE}' AND total_rows > 0"
    for (name,) in replicas.first.query(f"{filled} AND name != 'schema_versions'"):
        replicas.first.query(f"TRUNCATE TABLE {name}", DATABASE)


@pytest.fixture
def second(replicas: Replicas, settings: Settings) -> Settings:
    """The settings with the second server."""
    clickhouse = settings.clickhouse.model_copy(update={"port": replicas.second.port})
    return settings.model_copy(update={"clickhouse": clickhouse})


@pytest.fixture
def elsewhere(environ: dict[str, str], replicas: Replicas) -> dict[str, str]:
    """Environment of a worker that uses the second server, with the rights of a writer."""
    return environ | {
        env_name("clickhouse", "port"): str(replicas.second.port),
        env_name("clickhouse", "user"): "chimera_writer",
        env_name("clickhouse", "password"): "chimera_writer",
        env_name("worker", "web_port"): str(free_port()),
    }


@pytest.fixture
def at_second(elsewhere: dict[str, str], log: UiEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands of the test use the second server; `log` still uses the first one."""
    del log
    monkeypatch.setenv(env_name("clickhouse", "port"), elsewhere[env_name("clickhouse", "port")])


@pytest.fixture
def worker_at_second(elsewhere: dict[str, str], log: UiEvents, tmp_path: Path) -> Iterator[Worker]:
    """A worker that uses the second server."""
    del log
    with Worker(elsewhere, tmp_path / "second") as worker:
        yield worker.wait_until_consuming()


@contextmanager
def lagging(server: Replica) -> Iterator[Callable[[], None]]:
    """Keep a server from fetching; yields a function that ends this in a moment."""
    server.query("SYSTEM STOP FETCHES")
    timer = threading.Timer(1.5, server.query, ["SYSTEM START FETCHES"])
    yield timer.start
    timer.join()


def _stored(settings: Settings) -> tuple[int, int]:
    with connect(settings.clickhouse) as client:
        client.execute("SYSTEM SYNC REPLICA ui_events LIGHTWEIGHT")
        count, different = client.execute(_FACTS)[0]
    return count, different


def test_migrations_make_the_same_tables_everywhere(replicas: Replicas, log: UiEvents, chimera: Chimera) -> None:
    """Each table is replicated, with all settings at both servers; each migration is noted once."""
    del log
    assert chimera("migrate").stdout.endswith("was up to date\n")
    numbers = [int(file.name[:3]) for file in sorted(MIGRATIONS.glob("*.sql"))]
    shown = []
    for server in replicas:
        server.query("SYSTEM SYNC REPLICA schema_versions LIGHTWEIGHT", DATABASE)
        versions = "SELECT groupArray(version) FROM (SELECT version FROM schema_versions ORDER BY version)"
        assert server.query(versions, DATABASE) == [(numbers,)]
        shown.append(
            server.query(
                f"SELECT name, create_table_query FROM system.tables WHERE database = '{DATABASE}' "
                "AND name NOT LIKE 'chimera%' ORDER BY name"
            )
        )
    assert shown[0] == shown[1]
    for name, definition in shown[0]:
        assert "ENGINE = Replicated" in definition
        assert ("default_compression_codec" in definition) == (name != "schema_versions"), name


def test_migrations_wait_for_a_server_that_is_away(
    replicas: Replicas, chimera: Chimera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stop at the first statement and name the server, which could never create a table that changed since."""
    chimera("migrate")
    (tmp_path / "1000_notes.sql").write_text(
        "CREATE TABLE IF NOT EXISTS notes (day Date) ENGINE=MergeTree ORDER BY day", encoding="utf-8"
    )
    (tmp_path / "1001_text.sql").write_text(
        "ALTER TABLE notes ADD COLUMN IF NOT EXISTS text String, MODIFY SETTING min_bytes_for_wide_part = 7",
        encoding="utf-8",
    )
    monkeypatch.setenv(env_name("clickhouse", "migrations"), str(tmp_path))
    for name in ("user", "password"):
        monkeypatch.setenv(env_name("clickhouse", name), "chimera_admin")
    replicas.second.stop()
    away = chimera("migrate")
    assert away.returncode == 69
    assert f"127.0.0.1:{replicas.second.port}: this server of the cluster is away" in away.stderr
    replicas.second.start()
    assert chimera("migrate").stdout.count("applied") == 2
    notes = f"SELECT create_table_query FROM system.tables WHERE database = '{DATABASE}' AND name = 'notes'"
    eventually(lambda: "`text`" in str(replicas.second.query(notes)), "the second server has the column")
    assert replicas.first.query(notes) == replicas.second.query(notes)
    assert "min_bytes_for_wide_part = 7" in str(replicas.second.query(notes))
    for server in replicas:
        server.query("DROP TABLE notes SYNC", DATABASE)
    replicas.first.query("DELETE FROM schema_versions WHERE version >= 1000", DATABASE)


def test_workers_go_on_at_the_other_replica(
    replicas: Replicas, second: Settings, environ: dict[str, str], elsewhere: dict[str, str], log: UiEvents
) -> None:
    """A replica is killed with a worker that uses it; a worker at the other one takes over, and all is stored once."""
    output = replicas.first.directory / "worker.log"
    with Worker(environ, output) as worker:
        worker.wait_until_consuming()
        log.produce(_EVENTS, committed=False)
        settled(worker, log.settings, log.family, _EVENTS)
        assert _stored(second) == (_EVENTS, _EVENTS)
        replicas.first.kill()
        log.produce(_EVENTS, committed=False)
        worker.wait_for(lambda: worker.waiting, "the worker misses its replica")
    with Worker(elsewhere, output) as worker:
        eventually(lambda: _stored(second) == (2 * _EVENTS, 2 * _EVENTS), "stored at the other replica")
        replicas.first.start()
        assert worker.terminate() == 0
    for here in (log.settings, second):
        assert _stored(here) == (2 * _EVENTS, 2 * _EVENTS)
        assert log.complete(rows(here, "ui_events"))


def test_a_repeat_at_a_replica_that_lags_doubles_nothing(replicas: Replicas, log: UiEvents, second: Settings) -> None:
    """A swap makes the replicas forget tokens; rows that the other replica can't show yet are waited for."""
    records = values(log.family)
    ingest(log.settings, log.family, batch_of(log.family, records))
    assert _stored(second) == (ROWS, ROWS)
    with lagging(replicas.second) as ends:
        with log.client() as client:
            create_like(client, "copy", "ui_events")
            for day in ("2026-03-01", "2026-03-02", "2026-03-03"):
                client.execute(f"ALTER TABLE copy ATTACH PARTITION '{day}' FROM ui_events")
                client.execute(f"ALTER TABLE ui_events DROP PARTITION '{day}'")
                client.execute(f"ALTER TABLE ui_events REPLACE PARTITION '{day}' FROM copy")
            client.execute("DROP TABLE copy SYNC")
        ends()
        ingest(second, log.family, batch_of(log.family, records, again=True))
    assert _stored(log.settings) == _stored(second) == (ROWS, ROWS)


def test_rows_of_a_known_token_that_are_gone_come_back(replicas: Replicas, log: UiEvents, second: Settings) -> None:
    """Rows that somebody deleted are inserted again by a repeat, here at the other replica."""
    records = values(log.family)
    ingest(log.settings, log.family, batch_of(log.family, records))
    replicas.first.query(f"{_DELETE} _offset % 3 = 0 SETTINGS mutations_sync = 2", DATABASE)
    ingest(second, log.family, batch_of(log.family, records, again=True))
    assert _stored(log.settings) == (ROWS, ROWS)


@pytest.mark.usefixtures("at_second")
def test_a_look_at_a_replica_that_lags_waits(
    replicas: Replicas, log: UiEvents, chimera: Chimera, second: Settings
) -> None:
    """Verification finds nothing lost, and a fill inserts nothing, that the replica only can't show yet."""
    for number, command in enumerate((("verify", "ui_events"), ("replay", "ui_events", "--execute", "--no-rollup")), 1):
        with lagging(replicas.second) as ends:
            log.produce(_EVENTS, committed=False)
            store(log.settings, log.family)
            ends()
            done = chimera(*command, "--json")
        assert done.returncode == 0, done
        assert _stored(second) == (number * _EVENTS, number * _EVENTS)
    assert done.facts["inserted"] == 0
    replicas.first.query(f"{_DELETE} _offset % 4 = 0 SETTINGS mutations_sync = 2", DATABASE)
    assert chimera("verify", "ui_events").returncode == 1
    for inserted in (_EVENTS // 2, 0):
        filled = chimera("replay", "ui_events", "--execute", "--no-rollup", "--json")
        assert filled.facts["inserted"] == inserted
    assert _stored(log.settings) == _stored(second) == (2 * _EVENTS, 2 * _EVENTS)


def test_a_day_is_swapped_beside_ingest_at_the_other_replica(
    replicas: Replicas, log: UiEvents, chimera: Chimera, second: Settings, worker_at_second: Worker
) -> None:
    """Rewrites at the first replica, while a worker inserts into the same day at the second one, lose no row."""
    log.produce(_EVENTS, committed=False)
    settled(worker_at_second, second, log.family, _EVENTS)
    replicas.first.query(
        "ALTER TABLE ui_events UPDATE user_agent = 'wrong' WHERE 1 SETTINGS mutations_sync = 2", DATABASE
    )
    ended = threading.Event()
    live = threading.Thread(target=_produce_until, args=(log, ended))
    live.start()
    try:
        for _ in range(2):
            swapped = chimera("replay", "ui_events", "--day", _DAY, "--execute", "--no-rollup", "--json")
            assert swapped.returncode == 0, swapped
    finally:
        ended.set()
        live.join()
    settled(worker_at_second, second, log.family, len(log.events))
    assert worker_at_second.terminate() == 0
    for here in (log.settings, second):
        assert _stored(here) == (len(log.events), len(log.events))
        assert log.complete(rows(here, "ui_events"))
    assert chimera("verify", "ui_events").returncode == 0


def _produce_until(log: UiEvents, ended: threading.Event) -> None:
    while not ended.wait(0.1):
        log.produce(20, committed=False)


def test_the_other_commands(replicas: Replicas, log: UiEvents, chimera: Chimera) -> None:
    """The doctor, retention, maintenance and the repair of session_stats work on replicated tables."""
    log.produce(_EVENTS)
    assert chimera("replay", "ui_events", "--execute", "--no-rollup").returncode == 0
    close_hours(log, 493_000)
    repaired = chimera("rollup", "repair", "--day", _DAY, "--execute")
    assert (repaired.returncode, repaired.stderr) == (0, f"Repaired {_DAY}.\n")
    assert chimera("rollup", "verify").returncode == 0
    assert chimera("storage", "apply", "ui_events", "--yes").returncode == 0
    assert "1 as declared" in chimera("storage", "plan", "ui_events").stdout
    for server in replicas:  # a replica without the policy would be stuck with the rule
        eventually(lambda: _has_retention(server), "the rule and its policy are at both servers")  # noqa: B023
    for command in (("doctor",), ("maintenance", "daily"), ("maintenance", "weekly")):
        done = chimera(*command)
        assert done.returncode == 0, done
    assert chimera("storage", "drop", "ui_events", "--day", _DAY, "--execute").returncode == 0
    assert _stored(log.settings) == (0, 0)


def _has_retention(server: Replica) -> bool:
    ((shown, policy),) = server.query(
        f"SELECT create_table_query, storage_policy FROM system.tables "
        f"WHERE database = '{DATABASE}' AND name = 'ui_events'"
    )
    return "TO VOLUME" in shown and policy == "tiered"


def test_backups(replicas: Replicas, log: UiEvents, chimera: Chimera, second: Settings) -> None:
    """A backup at one replica is verified and restored beside; a day comes back in place at all replicas."""
    log.produce(_EVENTS)
    assert chimera("replay", "ui_events", "--execute", "--no-rollup").returncode == 0
    mine = f"CREATE TABLE mine ON CLUSTER {CLUSTER} (day Date) ENGINE=ReplicatedMergeTree ORDER BY day"
    replicas.first.query(mine, DATABASE)
    name = chimera("backup", "create", "--json").facts["name"]
    verified = chimera("backup", "verify", name)
    assert verified.returncode == 0, verified
    beside = chimera("backup", "restore", name, "--into", f"{DATABASE}_beside", "--execute")
    assert beside.returncode == 0, beside
    assert replicas.first.query("SELECT count() FROM ui_events", f"{DATABASE}_beside") == [(_EVENTS,)]
    replicas.first.query(f"DROP DATABASE {DATABASE}_beside SYNC")
    replicas.first.query(f"ALTER TABLE ui_events DROP PARTITION '{_DAY}'", DATABASE)
    in_place = ("backup", "restore", name, "--table", "ui_events", "--day", _DAY, "--in-place", "--execute")
    assert chimera(*in_place).returncode == 0
    assert _stored(log.settings) == _stored(second) == (_EVENTS, _EVENTS)
    refused = chimera("restore", "--to", datetime.now(UTC).isoformat(), "--in-place", "--execute")
    assert (refused.returncode, "is replicated, and --in-place" in refused.stderr) == (1, True)
    for server in replicas:
        server.query("DROP TABLE mine SYNC", DATABASE)
    refused = chimera("backup", "restore", name, "--table", "mine", "--in-place", "--execute")
    assert (refused.returncode, "no table mine" in refused.stderr) == (78, True)
