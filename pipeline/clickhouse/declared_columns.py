"""Columns of the tables as the migrations declare them, for checks without a server.

A server would parse the statements itself, and `pipeline.clickhouse.contract` asks it at the worker's start. These
checks come before a server is there or is migrated: `chimera schemas check` in CI, and `chimera topics` and the doctor,
which refuse declarations that the worker would refuse. So this module reads the few forms of statement that the
migrations and `pipeline.clickhouse.ddl` have. A test compares what it reads with a migrated server
(tests/integration/test_query_command.py), and what it can't read is left to the worker.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.catalog import Family
from pipeline.clickhouse.contract import check_table
from pipeline.clickhouse.live_columns import LiveColumn
from pipeline.clickhouse.migrate import MIGRATIONS

_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
_CREATE = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?(?P<table>\w+) \((?P<columns>.*?)\n\)", re.DOTALL)
_ALTER = re.compile(r"ALTER TABLE (?P<table>\w+) (?P<changes>.*)", re.DOTALL)
_NESTED = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"  # three levels: Map(String, Nullable(Decimal(10, 2)))
_TYPE = rf"(?P<type>\w+(?:{_NESTED})?)"
_KIND = r"(?: (?P<kind>DEFAULT|MATERIALIZED|ALIAS|EPHEMERAL)\b)?"
_COLUMN = re.compile(rf"^\s*`?(?P<name>\w+)`? {_TYPE}{_KIND}", re.MULTILINE)
_ADDED = re.compile(
    rf"(?:ADD|MODIFY) COLUMN (?:IF (?:NOT )?EXISTS )?(?!IF\b)`?(?P<name>\w+)`? (?!DEFAULT\b){_TYPE}{_KIND}"
)
_DEFAULTED = re.compile(r"MODIFY COLUMN (?:IF EXISTS )?`?(?P<name>\w+)`? DEFAULT\b")
_DROPPED = re.compile(r"DROP COLUMN (?:IF EXISTS )?`?(?P<name>\w+)`?")


def declared_columns(own: Path | None = None) -> dict[str, dict[str, LiveColumn]]:
    """Return the columns by table and name, after all migrations; `own` is the folder of one's own.

    It reads CREATE TABLE with a column a line, and ADD, MODIFY and DROP COLUMN. A table that is created in another form
    is left out; the worker checks it at its start.
    """
    tables: dict[str, dict[str, LiveColumn]] = {}
    for path in (*sorted(MIGRATIONS.glob("*.sql")), *(sorted(own.glob("*.sql")) if own else ())):
        statement = _COMMENT.sub("", path.read_text(encoding="utf-8")).strip()
        if created := _CREATE.match(statement):
            tables.setdefault(created["table"], dict(_found(_COLUMN, created["columns"])))
        elif (altered := _ALTER.match(statement)) and altered["table"] in tables:
            columns = tables[altered["table"]]
            columns.update(_found(_ADDED, altered["changes"]))
            for retired in _DEFAULTED.finditer(altered["changes"]):
                if (column := columns.get(retired["name"])) is not None:
                    columns[retired["name"]] = column._replace(kind="DEFAULT")
            for dropped in _DROPPED.finditer(altered["changes"]):
                columns.pop(dropped["name"], None)
    return tables


def check_declared(family: Family, tables: dict[str, dict[str, LiveColumn]]) -> None:
    """Compare the newest schema of a family with its table; a table that no migration creates is left to the worker.

    Raises:
        HaltError: as `check_table`: the worker would refuse to start.
    """
    if family.table in tables:
        columns = tables[family.table].items()
        filled = family.schema.by_name
        check_table(family, {name: each.type for name, each in columns if name in filled or not each.kind})


def _found(pattern: re.Pattern[str], text: str) -> Iterator[tuple[str, LiveColumn]]:
    for column in pattern.finditer(text):
        yield column["name"], LiveColumn(column["type"], column["kind"] or "")
