"""Check of the engines of the tables that the worker fills.

A repeated insert is stored once if the table's engine remembers deduplication tokens. Only engines of the MergeTree
family do. The migrations declare the engine of each table; another one of that family might add rows up or replace
them.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.migrate import MIGRATIONS
from pipeline.config import ClickHouseSettings
from pipeline.errors import HaltError

_TABLES = "SELECT name, engine FROM system.tables WHERE database = currentDatabase()"
_DECLARATION = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+) .*?\bENGINE=(\w+)", re.DOTALL)
_PLAIN = "MergeTree"
_FORMS = ("", "Replicated", "Shared")  # the latter two are those of clusters and of ClickHouse Cloud


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
    for table in engines.keys() & set(tables):
        allowed = tuple(dict.fromkeys((_declared().get((like or {}).get(table, table), _PLAIN), _PLAIN)))
        if engines[table] not in {form + engine for form in _FORMS for engine in allowed}:
            raise HaltError(
                f"table {settings.database}.{table} at {settings.address}: engine {engines[table]}: expected "
                f"{' or '.join(allowed)}, or its Replicated or Shared form: with another engine, a repeated insert may "
                "be stored twice, or rows may be replaced or added up"
            )


@cache
def _declared() -> dict[str, str]:
    """Engine of each table in the migrations."""
    texts = (file.read_text(encoding="utf-8") for file in sorted(MIGRATIONS.glob("*.sql")))
    return {match[1]: match[2] for text in texts if (match := _DECLARATION.search(text))}
