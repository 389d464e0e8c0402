"""Check of the engines of the tables that the worker fills.

A repeated insert is stored once if the table's engine remembers deduplication tokens. Only engines of the MergeTree
family do. The migrations declare the engine of each table; another one of that family might add rows up or replace
them.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.migrate import MIGRATIONS
from pipeline.config import ClickHouseSettings
from pipeline.errors import HaltError

_TABLES = "SELECT name, engine FROM system.tables WHERE database = currentDatabase()"
_DECLARATION = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+) .*?\bENGINE=(\w+)", re.DOTALL)
_PLAIN = "MergeTree"
_SORTING_KEY = (
    "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = %(table)s "
    "AND is_in_sorting_key AND table IN (SELECT name FROM system.tables WHERE database = currentDatabase() "
    "AND engine LIKE '%%Replacing%%')"
)
_LOOKED_FOR = re.compile(r"U?Int\d+|UUID|Bool|String|FixedString\(\d+\)|LowCardinality\(String\)")
_FORMS = ("", "Replicated", "Shared")  # the latter two are those of clusters and of ClickHouse Cloud


def replacing_tables(settings: ClickHouseSettings, database: str = "") -> frozenset[str]:
    """Return the tables whose engine replaces rows of the same key, by the server.

    Args:
        settings: server.
        database: another one than that of the settings.

    Raises:
        UnavailableError, HaltError: the server doesn't answer, or refuses.
    """
    with explained(settings), connect(settings, database=database or settings.database) as client:
        return frozenset(name for name, engine in all_rows(client, _TABLES) if "Replacing" in engine)


def check_engines(settings: ClickHouseSettings, tables: Iterable[str], like: Mapping[str, str] | None = None) -> None:
    """Check that each table has the engine that the migrations declare, or a plain MergeTree.

    A missing table is left out: inserts tell.

    Args:
        settings: server and database.
        tables: names of tables.
        like: for tables that no migration declares, the one whose structure they have.

    Raises:
        HaltError: a table has another engine, or is a view.
        UnavailableError: the server doesn't answer.
    """
    with explained(settings), connect(settings) as client:
        engines = dict(all_rows(client, _TABLES))
    declared = _declared(settings.migrations)
    for table in engines.keys() & set(tables):
        allowed = tuple(dict.fromkeys((declared.get((like or {}).get(table, table), _PLAIN), _PLAIN)))
        if engines[table] not in {form + engine for form in _FORMS for engine in allowed}:
            raise HaltError(
                f"table {settings.database}.{table} at {settings.address}: engine {engines[table]}: expected "
                f"{' or '.join(allowed)}, or its Replicated or Shared form: with another engine, a repeated insert may "
                "be stored twice, or rows may be replaced or added up"
            )


def check_sorting_keys(settings: ClickHouseSettings, tables: Iterable[str]) -> None:
    """Check that the worker can look for the rows that a ReplacingMergeTree has replaced, by the sorting key.

    A missing table is left out.

    Raises:
        HaltError: a column of the sorting key has another type.
        UnavailableError: the server doesn't answer.
    """
    with explained(settings), connect(settings) as client:
        for table in tables:
            for name, column_type in all_rows(client, _SORTING_KEY, {"table": table}):
                if not _LOOKED_FOR.fullmatch(column_type):
                    raise HaltError(
                        f"table {settings.database}.{table} at {settings.address}: column {name} {column_type} of the "
                        "sorting key: expected text, UUID, Bool or a whole number, by which replaced rows are found"
                    )


@cache
def _declared(own: Path | None) -> dict[str, str]:
    """Engine of each table in the migrations; `own` is the folder of one's own."""
    files = [*sorted(MIGRATIONS.glob("*.sql")), *(sorted(own.glob("*.sql")) if own else ())]
    texts = (file.read_text(encoding="utf-8") for file in files)
    return {match[1]: match[2] for text in texts if (match := _DECLARATION.search(text))}
