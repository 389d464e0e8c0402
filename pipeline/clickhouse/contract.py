"""Checks that tables fit their schemas: the same columns, and every valid value fits its column."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.coordinates import COORDINATES
from pipeline.clickhouse.live_columns import LiveColumn, read_columns
from pipeline.clickhouse.session_stats import COLUMNS, TABLE
from pipeline.config import ClickHouseSettings
from pipeline.errors import HaltError
from pipeline.schema.fields import Field
from pipeline.schema.privacy import Keep

_TYPE = re.compile(r"(?P<name>\w+)(?:\((?P<arguments>.*)\))?")
_FIXED_PATTERN = re.compile(r"\^(\[[^\]]+\]|\w)\{(?P<length>\d+)\}\$")
# Range of DateTime64, 1900 to 2299, in milliseconds since 1970.
_FIRST_MS, _LAST_MS = -2_208_988_800_000, 10_413_791_999_999


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
        expected = _expected(field, columns[field.name])
        if expected is not None:
            column = f"column {field.name} {columns[field.name]}"
            raise HaltError(f"{where}: {column}: expected in {schema.file.name} {expected}")


def _expected(field: Field, column_type: str) -> str | None:
    """Describe the field that a column of this type needs; None if the field fits."""
    match = _TYPE.fullmatch(column_type)
    name, arguments = (match["name"], (match["arguments"] or "").replace(" ", "")) if match else (column_type, "")
    check = _CHECKS.get((name, arguments)) or _CHECKS.get((name, "..."))
    if check is None:
        return "another column type: no Avro type is known for this one"
    return check(field, arguments)


def _is(avro_type: str, logical_type: str | None = None) -> Callable[[Field, str], str | None]:
    def check(field: Field, _: str) -> str | None:
        same = (field.type, field.logical_type) == (avro_type, logical_type)
        return None if same else logical_type or avro_type

    return check


def _timestamp(field: Field, _: str) -> str | None:
    within = _within(field, _FIRST_MS, _LAST_MS)
    return None if field.logical_type == "timestamp-millis" and within else "timestamp-millis from 1900 to 2299"


def _integer(field: Field, low: int, high: int) -> str | None:
    plain = field.type in {"int", "long"} and field.logical_type is None
    return None if plain and _within(field, low, high) else f"int or long with min and max from {low} to {high}"


def _unsigned(bits: int) -> Callable[[Field, str], str | None]:
    return lambda field, _: _integer(field, 0, (1 << bits) - 1)


def _decimal(field: Field, arguments: str) -> str | None:
    precision, scale = map(int, arguments.split(","))
    fits = field.logical_type == "decimal" and field.precision <= precision and field.scale == scale
    return None if fits else f"decimal with precision {precision} and scale {scale}"


def _fixed_string(field: Field, arguments: str) -> str | None:
    """Expect a fixed length: ClickHouse pads shorter values with zero bytes and refuses longer ones."""
    match = _FIXED_PATTERN.fullmatch(field.pattern.pattern) if field.pattern else None
    fits = match is not None and match["length"] == arguments and field.privacy == Keep()
    return None if fits else f"a string that privacy keeps, with a pattern of the form ^[...]{{{arguments}}}$"


def _few_values(field: Field, _: str) -> str | None:
    """Expect a closed set or a pattern: it keeps free text out of a column that is stored as a dictionary."""
    fits = field.type == "string" and (field.values or field.pattern)
    return None if fits else "a string with values or a pattern"


def _within(field: Field, low: int, high: int) -> bool:
    minimum = -math.inf if field.minimum is None else field.minimum
    maximum = math.inf if field.maximum is None else field.maximum
    return Decimal(minimum) >= low and Decimal(maximum) <= high


_CHECKS: dict[tuple[str, str], Callable[[Field, str], str | None]] = {
    ("DateTime64", "3,'UTC'"): _timestamp,
    ("UUID", ""): _is("string", "uuid"),
    ("String", ""): _is("string"),
    ("LowCardinality", "String"): _few_values,
    ("FixedString", "..."): _fixed_string,
    ("UInt8", ""): _unsigned(8),
    ("UInt16", ""): _unsigned(16),
    ("UInt32", ""): _unsigned(32),
    ("Float32", ""): _is("float"),
    ("Decimal", "..."): _decimal,
}
"""Check of a field for a column, by the name and the arguments of the column's type; "..." stands for any arguments."""
