"""Writes the statements for a family's table: CREATE TABLE for a new one, ALTER TABLE for another version of a schema.

A statement may be repeated without harm, and workers of the older version run on. They don't fill an added column, so
the column has a default. They still fill the column of a retired field, so that column stays until it is dropped.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from pipeline.clickhouse.column_types import column_type
from pipeline.clickhouse.coordinates import OFFSET, PARTITION, TOPIC_ID
from pipeline.schema.defaults import meant_default
from pipeline.schema.fields import Field
from pipeline.schema.versions import VERSION_FIELD, Schema

_WINDOW = 400_000  # blocks whose tokens a table remembers: see pipeline.clickhouse.migrate
_WINDOW_SECONDS = 604_800
_FIRST_DAY = date(1970, 1, 1)


def create_table(schema: Schema, table: str, key: str) -> str:
    """Return the CREATE TABLE statement for a family.

    Args:
        schema: its schema.
        table: name of the table.
        key: name of the field that keys the records.
    """
    columns = [
        *(f"`{field.name}` {column_type(field)}{_default(field, schema)}" for field in schema.fields),
        f"{TOPIC_ID} UUID MATERIALIZED defaultValueOfTypeName('UUID') CODEC(ZSTD(1))",
        f"{PARTITION} UInt16 MATERIALIZED 0 CODEC(T64, ZSTD(1))",
        f"{OFFSET} UInt64 MATERIALIZED 0 CODEC(T64, ZSTD(1))",
    ]
    listed = ",\n    ".join(columns)
    return f"""-- Table of {schema.file.name}. Its last three columns are the coordinates of each row's record.
CREATE TABLE IF NOT EXISTS {table} (
    {listed}
) ENGINE=MergeTree
PARTITION BY toDate(ts)
ORDER BY (ts, `{key}`)
SETTINGS
    non_replicated_deduplication_window = {_WINDOW},
    replicated_deduplication_window = {_WINDOW},
    replicated_deduplication_window_seconds = {_WINDOW_SECONDS};
"""


def alter_table(older: Schema, newer: Schema, table: str) -> str:
    """Return the ALTER TABLE statement from one version of a schema to another; empty if the table stays as it is."""
    changes = [*_added(older, newer), *_changed(older, newer), *_retired(older, newer)]
    if not changes:
        return ""
    listed = ",\n    ".join(changes)
    return f"-- From {older.file.name} to {newer.file.name}.\nALTER TABLE {table} {listed};\n"


def drop_retired(versions: tuple[Schema, ...], table: str) -> str:
    """Return the statement that drops the columns of fields which the newest version lacks; empty if there are none."""
    newest = versions[-1].by_name
    retired = dict.fromkeys(name for version in versions for name in version.by_name if name not in newest)
    if not retired:
        return ""
    listed = ",\n    ".join(f"DROP COLUMN IF EXISTS `{name}`" for name in retired)
    return f"-- No worker with an older schema than {versions[-1].file.name} may run.\nALTER TABLE {table} {listed};\n"


def _added(older: Schema, newer: Schema) -> Iterator[str]:
    for field in newer.fields:
        if field.name not in older.by_name:
            yield f"ADD COLUMN IF NOT EXISTS `{field.name}` {column_type(field)}{_default(field, newer)}"


def _changed(older: Schema, newer: Schema) -> Iterator[str]:
    """Yield a change for each field whose column has another type; a table may have a wider one already."""
    for field in newer.fields:
        former = older.by_name.get(field.name)
        if former is not None and column_type(former) != column_type(field):
            yield f"MODIFY COLUMN `{field.name}` {column_type(field)}"


def _retired(older: Schema, newer: Schema) -> Iterator[str]:
    for field in older.fields:
        if field.name not in newer.by_name:
            default = f"defaultValueOfTypeName('{_quoted(column_type(field))}')"
            yield f"MODIFY COLUMN IF EXISTS `{field.name}` DEFAULT {default}"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _default(field: Field, schema: Schema) -> str:
    if field.required:
        return ""
    if field.name == VERSION_FIELD:
        return f" DEFAULT {schema.version}"
    return f" DEFAULT {literal(field, meant_default(field))}"


def literal(field: Field, value: Any) -> str:
    """Write a value of a field as SQL.

    Args:
        field: the declaration.
        value: in the field's own unit; decimals as numbers, bytes as bytes.
    """
    if isinstance(value, list) and field.items is not None:
        return f"[{', '.join(literal(field.items, item) for item in value)}]"
    if isinstance(value, Mapping) and field.items is not None:
        members = (f"'{_quoted(key)}', {literal(field.items, member)}" for key, member in value.items())
        return f"map({', '.join(members)})"
    if value is not None and field.logical_type in _TIMES:
        return _TIMES[field.logical_type](value)
    return _LITERALS[type(value)](value)


_TIMES: dict[str, Callable[[int], str]] = {
    "timestamp-millis": lambda value: f"fromUnixTimestamp64Milli({value}, 'UTC')",
    "timestamp-micros": lambda value: f"fromUnixTimestamp64Micro({value}, 'UTC')",
    "date": lambda value: f"'{_FIRST_DAY + timedelta(days=value)}'",
}
_LITERALS: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "NULL",
    bool: lambda value: "true" if value else "false",
    int: repr,
    float: repr,
    bytes: lambda value: f"unhex('{value.hex()}')",
    Decimal: lambda value: f"'{value:f}'",
    str: lambda value: f"'{_quoted(value)}'",
}
