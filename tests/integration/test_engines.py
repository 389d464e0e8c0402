"""Engines that a table of the worker may have: those on which an insert can be repeated and each row stays."""

from pathlib import Path

import pytest
from clickhouse_driver import Client
from support.processes import Worker, last_word, prepare

from pipeline.catalog import load_catalog
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.engines import check_engines
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.table_checks import TABLE_CHECKS, TableCheck
from pipeline.config import Settings
from pipeline.errors import HaltError

pytestmark = pytest.mark.integration

_KEY = {"episodes": "(ts, run_id)", TABLE: "(hour, session_id)"}


def _replace(client: Client, table: str, engine: str) -> None:
    """Put a table or view with the same columns and another engine in a table's place."""
    client.execute(f"RENAME TABLE {table} TO former")
    database = client.execute("SELECT currentDatabase()")[0][0]
    match engine:
        case "View":
            client.execute(f"CREATE VIEW {table} AS SELECT * FROM former")
        case "MaterializedView":
            client.execute(
                f"CREATE MATERIALIZED VIEW {table} ENGINE=MergeTree ORDER BY tuple() AS SELECT * FROM former"
            )
        case "Buffer":
            definition = f"Buffer({database}, former, 1, 1, 1, 1, 1, 1, 1)"
            client.execute(f"CREATE TABLE {table} AS former ENGINE={definition}")
        case "Proxy":  # of a table function
            client.execute(f"CREATE TABLE {table} AS remote('127.0.0.1:{client.connection.port}', {database}, former)")
        case _:
            order = f"ORDER BY {_KEY[table]}" if "MergeTree" in engine else ""
            described = client.execute("DESCRIBE TABLE former")
            columns = ", ".join(
                f"`{name}` {' '.join(definition)}" for name, *definition in [row[:4] for row in described]
            )
            client.execute(f"CREATE TABLE {table} ({columns}) ENGINE={engine} {order}")


@pytest.mark.parametrize("table", ["episodes", TABLE])
@pytest.mark.parametrize(
    "engine",
    [
        "Memory",
        "Log",
        "TinyLog",
        "StripeLog",
        "Null",
        "Buffer",
        "Proxy",
        "View",
        "MaterializedView",
        "SummingMergeTree",
        "AggregatingMergeTree",
        "ReplacingMergeTree",
    ],
)
def test_an_engine_that_breaks_the_guarantee_is_refused(
    settings: Settings, client: Client, table: str, engine: str
) -> None:
    """The message names table, engine, and the engines that are expected."""
    _replace(client, table, engine)
    message = rf"table test_\w+\.{table} at .*: engine {engine}: expected MergeTree, or its Replicated"
    with pytest.raises(HaltError, match=message):
        check_engines(settings.clickhouse, ["llm_events", table])


def test_migrated_tables_have_the_right_engines(settings: Settings, client: Client) -> None:
    """The tables of the migrations are accepted, and a plain MergeTree in the place of one that replaces rows."""
    tables = [*(family.table for family in load_catalog(settings).families), TABLE]
    check_engines(settings.clickhouse, tables)
    client.execute("RENAME TABLE bench_runs TO former")
    client.execute("CREATE TABLE bench_runs AS former ENGINE=MergeTree ORDER BY run_id")
    check_engines(settings.clickhouse, tables)


def test_a_sorting_key_by_which_no_replaced_row_is_found_is_refused(settings: Settings, client: Client) -> None:
    """The list of checks that worker, doctor and `family check` go by has it, and accepts all migrated tables."""
    client.execute("RENAME TABLE bench_runs TO former")
    client.execute("CREATE TABLE bench_runs AS former ENGINE=ReplacingMergeTree(ts) ORDER BY (ts, run_id)")
    refused = [check.holds for check in TABLE_CHECKS if _refuses(check, settings, ["bench_runs"])]
    assert refused == ["replaced rows can be looked for by the sorting key"]
    client.execute("EXCHANGE TABLES bench_runs AND former")
    tables = [*(family.table for family in load_catalog(settings).families), TABLE]
    assert not any(_refuses(check, settings, tables) for check in TABLE_CHECKS)


def _refuses(check: TableCheck, settings: Settings, tables: list[str]) -> bool:
    try:
        check.run(settings.clickhouse, tables)
    except HaltError:
        return True
    return False


def test_a_worker_does_not_start_on_a_table_in_memory(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """One line and exit code 70, before anything is consumed."""
    prepare(settings)
    with connect(settings.clickhouse) as client:
        _replace(client, "episodes", "Memory")
    with Worker(environ, tmp_path / "log") as worker:
        assert "episodes" in (line := last_word(worker, HaltError.exit_code))
    assert "engine Memory: expected MergeTree" in line
