"""Checks that tables fit their schemas: the same columns, and every valid value fits its column."""

from collections.abc import Collection, Iterable, Mapping

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.column_types import unfit
from pipeline.clickhouse.coordinates import COORDINATES
from pipeline.clickhouse.live_columns import LiveColumn, read_columns
from pipeline.clickhouse.session_stats import COLUMNS, TABLE
from pipeline.config import ClickHouseSettings
from pipeline.errors import HaltError


def check_tables(settings: ClickHouseSettings, families: Iterable[Family]) -> dict[str, dict[str, str]]:
    """Compare the tables on the server with the newest schemas of their families.

    Columns with a default that no field fills are allowed: a newer version may have added them.

    Returns:
        ClickHouse type of each column that the worker fills, by table and name.

    Raises:
        HaltError: a table is missing or differs; the message says which and how.
        UnavailableError: the server doesn't answer.
    """
    live, checked = _live_columns(settings), {}
    for family in families:
        columns = _filled_columns(settings, family.table, live, family.schema.by_name)
        check_table(family, columns)
        checked[family.table] = {**columns, **_coordinates(settings, family.table, live[family.table])}
    return checked


def left_columns(settings: ClickHouseSettings, filled: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Return the columns that inserts leave to the server, as in a CREATE TABLE, by table; tables without any too.

    Args:
        settings: server and database.
        filled: names of the columns that inserts fill, by table.

    Raises:
        HaltError, UnavailableError: the server refuses, or doesn't answer.
    """
    live = _live_columns(settings)
    return {
        table: [f"{name} {column.type} {column.kind}" for name, column in live[table].items() if name not in names]
        for table, names in filled.items()
    }


def check_rollup(settings: ClickHouseSettings) -> dict[str, dict[str, str]]:
    """Compare session_stats on the server with the columns that the rollup fills.

    Returns and Raises: as `check_tables`.
    """
    columns = _filled_columns(settings, TABLE, _live_columns(settings), COLUMNS)
    where = f"table {settings.database}.{TABLE} at {settings.address}"
    for name in sorted(columns.keys() | COLUMNS.keys()):
        expected, found = COLUMNS.get(name), columns.get(name)
        if found is None or expected is None or found.partition("(")[0] != expected:
            raise HaltError(f"{where}: column {name}: expected {expected or 'none'}, found {found or 'none'}")
    return {TABLE: columns}


def _filled_columns(
    settings: ClickHouseSettings, table: str, live: Mapping[str, Mapping[str, LiveColumn]], filled: Collection[str]
) -> dict[str, str]:
    """Return the types of a table's columns by name, without columns that inserts leave to a default.

    Args:
        settings: server and database, for messages.
        table: name of the table.
        live: columns of all tables.
        filled: names of the columns that inserts fill.

    Raises:
        HaltError: the table is missing, or doesn't store values of a column that inserts fill.
    """
    where = f"table {settings.database}.{table} at {settings.address}"
    if table not in live:
        raise HaltError(f"{where}: missing; create it with `chimera migrate`")
    for name in filled:
        if name in live[table] and not live[table][name].stored:
            raise HaltError(f"{where}: column {name}: expected one that stores values, found {live[table][name]}")
    return {name: column.type for name, column in live[table].items() if name in filled or not column.kind}


def _coordinates(settings: ClickHouseSettings, table: str, columns: Mapping[str, LiveColumn]) -> Mapping[str, str]:
    """Return the types of the columns of coordinates by name.

    Raises:
        HaltError: a column is missing, or can't hold coordinates.
    """
    for name, expected in COORDINATES.items():
        found = columns.get(name)
        if found is None or found.type != expected or not found.takes_values(name):
            raise HaltError(
                f"table {settings.database}.{table} at {settings.address}: column {name}: expected {expected} "
                f"MATERIALIZED, found {found or 'none'}; add missing columns with `chimera migrate`"
            )
    return COORDINATES


def _live_columns(settings: ClickHouseSettings) -> dict[str, dict[str, LiveColumn]]:
    with explained(settings), connect(settings, database="") as client:
        return read_columns(client, settings.database)


def check_table(family: Family, columns: Mapping[str, str]) -> None:
    """Compare the columns of a table with the newest schema of its family.

    Args:
        family: its newest schema declares the fields.
        columns: types of its columns by name, as ClickHouse writes them.

    Raises:
        HaltError: a field has no column, a column has no field, or a column can't hold every valid value of its field.
    """
    schema, where = family.schema, f"table {family.table}"
    for name in sorted(columns.keys() - schema.by_name.keys()):
        raise HaltError(f"{where}: column {name}: expected a field in {schema.file.name}")
    for field in schema.fields:
        if field.name not in columns:
            raise HaltError(f"{where}: no column for field {field.name} of {schema.file.name}")
        expected = unfit(field, columns[field.name])
        if expected is not None:
            column = f"column {field.name} {columns[field.name]}"
            raise HaltError(f"{where}: {column}: expected in {schema.file.name} {expected}")
