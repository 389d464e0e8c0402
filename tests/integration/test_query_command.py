"""`chimera query` answers on a real server, in three forms, and can change nothing whatever is asked."""

import csv
import io
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from clickhouse_driver import Client

from pipeline.cli import cli
from pipeline.clickhouse.asking import asking
from pipeline.clickhouse.declared_columns import declared_columns
from pipeline.clickhouse.live_columns import LiveColumn, read_columns
from pipeline.clickhouse.queries import load_queries
from pipeline.config import Settings
from pipeline.errors import ChimeraError

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("client")]

_MIXED = (
    "SELECT 18446744073709551615 AS big, toDecimal64('1.25', 4) AS money, NULL AS nothing, nan AS odd, 'a,\"b' AS text,"
    " [1, 2] AS many, toDateTime64('2026-11-24 12:00:00.5', 3, 'UTC') AS at"
)
_CHANGES = [
    "CREATE TABLE evil (a UInt8) ENGINE = MergeTree ORDER BY a",
    "DROP TABLE ui_events",
    "ALTER TABLE ui_events DELETE WHERE 1",
    "INSERT INTO ui_events SELECT * FROM ui_events",
    "INSERT INTO FUNCTION file('evil.csv') SELECT 1",  # readonly lets this and the next two through
    "SYSTEM STOP MERGES",
    "KILL QUERY WHERE 1",
    "/* SHOW */ SYSTEM STOP MERGES",
    "-- SHOW x\nSYSTEM STOP MERGES",
    "SHOW TABLES; DROP TABLE ui_events",
    "SELECT 1; SYSTEM STOP MERGES",
    "SELECT 1) UNION ALL SELECT * FROM (SELECT 2",
    "SELECT 1 SETTINGS readonly = 0",
]
_LOOKS = ["SHOW TABLES", "DESCRIBE ui_events", "EXISTS ui_events", "WITH 1 AS a SELECT a -- end", "SELECT 1 ; "]


def _ask(sql: str | None, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["query", *arguments], input=sql)


def test_nothing_can_be_changed(client: Client) -> None:
    """The user of the test may do everything; the command refuses each change with 70, and lets people look."""
    before = client.execute("SHOW TABLES")
    for sql in _CHANGES:
        failure = _ask(sql).exception
        assert isinstance(failure, ChimeraError), sql
        assert failure.exit_code == 70
    assert client.execute("SHOW TABLES") == before
    assert {sql: _ask(sql).exit_code for sql in _LOOKS} == dict.fromkeys(_LOOKS, 0)


def test_a_closed_pipe_is_no_failure_of_the_server(settings: Settings) -> None:
    """`chimera query … | head` isn't told that ClickHouse is absent."""
    with pytest.raises(BrokenPipeError), asking(settings.clickhouse, "SELECT 1"):
        raise BrokenPipeError


def test_answers_are_whole_in_every_form() -> None:
    """JSON has every digit, CSV is quoted, and a table in a pipe cuts nothing and says if there is more."""
    assert json.loads(_ask(_MIXED, "--format", "json").stdout, parse_float=str) == {
        "big": 18446744073709551615,
        "money": "1.25",
        "nothing": None,
        "odd": None,
        "text": 'a,"b',
        "many": [1, 2],
        "at": "2026-11-24T12:00:00.500000+00:00",
    }
    (row,) = csv.DictReader(io.StringIO(_ask(_MIXED, "--format", "csv").stdout))
    assert (row["money"], row["nothing"], row["text"], row["many"]) == ("1.25", "", 'a,"b', "[1,2]")
    table = _ask("SELECT repeat('x', 300) AS long, '\\x1b[31m' AS red FROM numbers(3);", "--limit", "2")
    assert table.stdout.count("x" * 300) == 2
    assert "\x1b" not in table.stdout
    assert "more than 2 rows" in table.stderr


def test_every_query_of_the_specification_runs_by_its_name(client: Client, settings: Settings) -> None:
    """The one that ClickHouse refuses names its corrected form.

    The tables are those that `chimera schemas check` reads from the migrations.
    """
    for name, query in load_queries().items():
        result = _ask(None, name, "--format", "csv")
        if query.refused:
            assert f"{name}_corrected asks the same" in str(result.exception)
        else:
            assert result.exit_code == 0, (name, result.exception)
    live = read_columns(client, settings.clickhouse.database)
    live.pop("schema_versions")
    assert _plain(declared_columns()) == _plain(live)


def _plain(tables: dict[str, dict[str, LiveColumn]]) -> dict[str, dict[str, Any]]:
    return {
        table: {name: (column.type.replace(" ", ""), column.kind) for name, column in columns.items()}
        for table, columns in tables.items()
    }
