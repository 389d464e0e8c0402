"""`chimera migrate` on a real server: its results, repeated runs, and failures."""

import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from clickhouse_driver import Client
from support.tables import create_tables

from pipeline.cli.migrate import migrate as command
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.migrate import MIGRATIONS, migrate, pending
from pipeline.config import ClickHouseSettings, Settings, env_name
from pipeline.devstack.clickhouse import ClickHouseServer, ClickHouseUser
from pipeline.devstack.ports import free_port
from pipeline.errors import ConfigError, HaltError, UnavailableError

pytestmark = pytest.mark.integration

_FILES = tuple(sorted(MIGRATIONS.glob("*.sql")))
_TABLES = {path.stem[4:] for path in _FILES if "CREATE TABLE" in path.read_text(encoding="utf-8")}


@pytest.fixture
def client(settings: Settings) -> Client:
    return connect(settings.clickhouse, database="default")


def _tables(client: Client, settings: Settings) -> set[str]:
    rows = client.execute(f"SELECT name FROM system.tables WHERE database = '{settings.clickhouse.database}'")
    return {name for (name,) in rows}


def test_a_plan_lists_pending_migrations_and_changes_nothing(settings: Settings, client: Client) -> None:
    """Before the first run every migration is pending, and the database may be missing."""
    result = CliRunner().invoke(command, ["--plan"], catch_exceptions=False)
    assert result.output.splitlines() == [f"pending  {path.name}" for path in _FILES]
    assert (settings.clickhouse.database,) not in client.execute("SHOW DATABASES")


def test_a_run_creates_all_tables_and_a_second_one_changes_nothing(settings: Settings, client: Client) -> None:
    """The first run creates all seven tables and p95; the second says that the database was up to date."""
    first, second, plan = (
        CliRunner().invoke(command, arguments, catch_exceptions=False) for arguments in ([], [], ["--plan"])
    )
    where = f"database {settings.clickhouse.database} at {settings.clickhouse.address}"
    assert first.output.splitlines() == [f"applied  {path.name}" for path in _FILES]
    assert second.output == f"{where} was up to date\n"
    assert plan.output == f"{where} is up to date\n"
    assert _tables(client, settings) == _TABLES | {"schema_versions"}
    assert client.execute("SELECT p95(number) FROM numbers(101)") == [(95.0,)]


def test_tables_of_other_tests_are_those_of_a_migration(settings: Settings, client: Client) -> None:
    """`create_tables`, which other tests use, repeats the statements of a database that was migrated."""
    made = []
    makers: list[Callable[[ClickHouseSettings], object]] = [create_tables, create_tables, migrate]
    for suffix, make in enumerate(makers):
        database = settings.clickhouse.model_copy(update={"database": f"{settings.clickhouse.database}_{suffix}"})
        make(database)
        rows = client.execute(f"SELECT create_table_query FROM system.tables WHERE database = '{database.database}'")
        versions = client.execute(f"SELECT version, md5 FROM {database.database}.schema_versions ORDER BY version")
        made.append((sorted(text.replace(database.database, "") for (text,) in rows), versions))
        assert pending(database) == ()
        client.execute(f"DROP DATABASE {database.database} SYNC")
    assert made[0] == made[1] == made[2]


def test_every_table_drops_a_repeated_token(settings: Settings) -> None:
    """A table doesn't store a second block with a known token, whatever its content."""
    migrate(settings.clickhouse)
    once = {"async_insert": 0, "insert_deduplicate": 1, "insert_deduplication_token": "topic:0:0-9"}
    today = datetime.now(UTC)
    with connect(settings.clickhouse) as client:
        for table in _TABLES:
            moment = "hour" if table == "session_stats" else "ts"
            for _ in range(2):
                client.execute(f"INSERT INTO {table} ({moment}) VALUES", [(today,)], settings=once)
            assert client.execute(f"SELECT count() FROM {table}") == [(1,)], table


def test_concurrent_runs_give_the_result_of_one(settings: Settings, client: Client) -> None:
    """Hosts that migrate at once all succeed, and each migration is applied."""
    with ThreadPoolExecutor(4) as hosts:
        runs = [hosts.submit(migrate, settings.clickhouse) for _ in range(4)]
    assert {path for run in runs for path in run.result()} == set(_FILES)
    assert _tables(client, settings) == _TABLES | {"schema_versions"}
    assert pending(settings.clickhouse) == ()


def test_the_next_run_finishes_a_run_that_died(settings: Settings) -> None:
    """A statement that ran without an entry in `schema_versions` is repeated without harm."""
    migrate(settings.clickhouse)
    with connect(settings.clickhouse) as client:
        client.execute("INSERT INTO watcher_runs (status) VALUES", [("valid",)])
        client.execute("DELETE FROM schema_versions WHERE version >= 5")
        assert migrate(settings.clickhouse) == _FILES[4:]
        assert client.execute("SELECT status FROM watcher_runs") == [("valid",)]


@pytest.mark.parametrize("table", ["episodes", "bench_runs"])
def test_a_window_that_an_operator_has_widened_is_not_narrowed(settings: Settings, tmp_path: Path, table: str) -> None:
    """The plan says which table keeps its window; the others are widened, and everything is up to date afterwards."""
    former = Path(shutil.copytree(MIGRATIONS, tmp_path / "migrations"))
    widening = [path for path in _FILES if path.stem.endswith("_window")]
    for path in widening:
        (former / path.name).unlink()
    migrate(settings.clickhouse, former)
    with connect(settings.clickhouse) as client:
        client.execute(f"ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 1000000")
        plan, run = (CliRunner().invoke(command, arguments, catch_exceptions=False) for arguments in (["--plan"], []))
        for output, word in ((plan.output, "pending"), (run.output, "applied")):
            assert [line.endswith("(the table keeps its wider window)") for line in output.splitlines()] == [
                table in path.name for path in widening
            ]
            assert [line.split()[:2] for line in output.splitlines()] == [[word, path.name] for path in widening]
        definitions = client.execute("SELECT name, engine_full FROM system.tables WHERE database = currentDatabase()")
    found = {name: int(match[1]) for name, text in definitions if (match := re.search(r"\bnon_\w+ = (\d+)", text))}
    assert found == {**dict.fromkeys(_TABLES, 400_000), "ui_events": 800_000, table: 1_000_000}
    assert pending(settings.clickhouse) == ()
    assert migrate(settings.clickhouse) == ()


def test_an_edited_migration_is_an_error_that_names_the_file(settings: Settings, tmp_path: Path) -> None:
    """An applied file can't be changed afterwards; nothing is executed."""
    directory = Path(shutil.copytree(MIGRATIONS, tmp_path / "migrations"))
    migrate(settings.clickhouse, directory)
    edited = directory / _FILES[1].name
    edited.write_text(edited.read_text(encoding="utf-8").replace("UInt32", "UInt64"), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"{edited}: edited after it was applied"):
        migrate(settings.clickhouse, directory)


def test_a_migration_of_a_newer_version_is_an_error(settings: Settings, tmp_path: Path) -> None:
    """A database of a newer version isn't changed."""
    directory = Path(shutil.copytree(MIGRATIONS, tmp_path / "migrations"))
    later = "CREATE TABLE IF NOT EXISTS later (x UInt8) ENGINE=Memory"
    (directory / "999_later.sql").write_text(later, encoding="utf-8")
    migrate(settings.clickhouse, directory)
    with pytest.raises(HaltError, match="has migration 999, which is not in"):
        migrate(settings.clickhouse)


def test_no_server_is_unavailable(settings: Settings) -> None:
    """The error of a port without a server is UnavailableError and gives its address."""
    nowhere = settings.clickhouse.model_copy(update={"port": free_port()})
    with pytest.raises(UnavailableError, match=nowhere.address):
        migrate(nowhere)


def test_login_and_database_come_from_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right password migrates the configured database; a wrong one halts, and the error names the variables."""
    grants = ("GRANT ALL ON tenant.*", "GRANT CREATE FUNCTION ON *.*", "GRANT TABLE ENGINE ON *")
    with ClickHouseServer(tmp_path, users=[ClickHouseUser("writer", "correct horse", grants)]) as server:
        login = {"port": server.port, "user": "writer", "database": "tenant", "password": "correct horse"}
        for key, value in login.items():
            monkeypatch.setenv(env_name("clickhouse", key), str(value))
        assert CliRunner().invoke(command, catch_exceptions=False).output.count("applied") == len(_FILES)
        monkeypatch.setenv(env_name("clickhouse", "password"), "wrong")
        with pytest.raises(HaltError, match=env_name("clickhouse", "password")):
            CliRunner().invoke(command, catch_exceptions=False)
