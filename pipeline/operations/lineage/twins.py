"""Rows of a table that may stand for a missing one: a newer row of the same key, or a row without coordinates."""

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.catalog import Family
from pipeline.clickhouse.coordinates import TOPIC_ID, WITHOUT
from pipeline.clickhouse.lookups import all_rows
from pipeline.columns import Column, DictionaryColumn, Mask, Rows

_TABLE = "SELECT engine, sorting_key FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"
_TYPES = {
    "uuid": "UUID",
    "timestamp-millis": "DateTime64(3, 'UTC')",
    "int": "Int64",
    "long": "Int64",
    "boolean": "Bool",
}
# ruff: noqa: S608 (names of ours)


class Twins:
    """Looks for rows that may stand for missing ones.

    Methods raise the driver's errors, and UnavailableError if the server ends a query without its result.

    Args:
        client: connected, with the table's database as default.
        family: owner of the table.
    """

    def __init__(self, client: Any, family: Family) -> None:
        self._client = client
        self._family = family
        ((engine, key),) = all_rows(client, _TABLE, {"table": family.table})
        self._key: tuple[str, ...] = tuple(key.split(", ")) if "Replacing" in engine else ()

    def newer(self, rows: Rows) -> Mask:
        """Return the mask of rows that a stored row of the same sorting key and day replaces; its `ts` isn't smaller.

        Only a ReplacingMergeTree replaces rows.
        """
        if not self._key:
            return np.zeros(len(rows), np.bool_)
        same = ", ".join(("toDate(ts)", *self._key))
        query = (
            f"SELECT DISTINCT place FROM missing JOIN (SELECT {same}, max(ts) AS newest FROM `{self._family.table}` "
            f"WHERE ({same}) IN (SELECT {same} FROM missing) GROUP BY {same}) AS stored "
            f"USING ({', '.join(self._key)}) WHERE toDate(missing.ts) = stored.`toDate(ts)` AND newest >= missing.ts"
        )
        return self._found(query, rows, ("ts", *self._key))

    def without_coordinates(self, rows: Rows) -> Mask:
        """Return the mask of rows of which the table has one with the same `ts` and key and no coordinates."""
        same = f"ts, {self._family.key}"
        query = (
            f"SELECT DISTINCT place FROM missing WHERE ({same}) IN (SELECT {same} FROM `{self._family.table}` "
            f"WHERE {TOPIC_ID} = toUUID('{WITHOUT}') AND ({same}) IN (SELECT {same} FROM missing))"
        )
        return self._found(query, rows, ("ts", self._family.key))

    def _found(self, query: str, rows: Rows, names: Sequence[str]) -> Mask:
        fields = [self._family.schema.by_name[name] for name in names]
        types = [_TYPES.get(field.logical_type or field.type, "String") for field in fields]
        values = zip(*(_values(rows.columns[name]) for name in names), strict=True)
        sent = {
            "name": "missing",
            "structure": [("place", "UInt32"), *zip(names, types, strict=True)],
            "data": [{"place": place, **dict(zip(names, of, strict=True))} for place, of in enumerate(values)],
        }
        found = np.zeros(len(rows), np.bool_)
        found[[place for (place,) in all_rows(self._client, query, external_tables=[sent])]] = True
        return found


def _values(column: Column) -> list[Any]:
    """Return values as the driver takes them."""
    if isinstance(column, DictionaryColumn):
        return [value.decode() for value in column.to_list()]
    if isinstance(column, list):
        return [value.decode() for value in column]
    assert isinstance(column, np.ndarray)  # a sorting key has no lists and no nulls
    if column.dtype == "V16":
        return [uuid.UUID(bytes=value.tobytes()) for value in column]
    if column.dtype.kind == "V":
        return [value.tobytes().decode() for value in column]
    values: list[Any] = column.tolist()
    return values
