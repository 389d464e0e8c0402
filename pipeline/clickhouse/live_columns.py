"""Columns of a table on the server: read from system.columns or from the answer to an INSERT, and compared.

The worker checks its tables once, at its start (`pipeline.clickhouse.contract`). Afterwards each insert compares the
columns of the server's answer with the checked ones, before it sends a row: blocks are written in the checked types,
and the server would take 1.5 of a Decimal(10, 6) for 150 of a Decimal(18, 4).
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import structlog

from pipeline.clickhouse.coordinates import COORDINATES
from pipeline.clickhouse.lookups import all_rows
from pipeline.config import ClickHouseSettings
from pipeline.errors import HaltError

_COLUMNS = "SELECT table, name, type, default_kind FROM system.columns WHERE database = %(database)s ORDER BY position"
# A line of the server's ColumnsDescription::toString: name, type, and the kind of default.
_LINE = re.compile(
    r"`(?P<name>(?:[^`\\]|\\.)*)` (?P<type>[^\t\n]*)(?:\t(?P<kind>DEFAULT|MATERIALIZED|ALIAS|EPHEMERAL)\b)?"
)
_STORED_KINDS = {"", "DEFAULT"}  # inserted values of other columns are refused, or not stored


class LiveColumn(NamedTuple):
    """Type of a column, and the kind of its default: DEFAULT, MATERIALIZED, ALIAS, EPHEMERAL or empty."""

    type: str
    kind: str = ""

    def __str__(self) -> str:
        """Type and kind as in a CREATE TABLE; DEFAULT is left out, since it doesn't change what an insert stores."""
        return self.type if self.stored else f"{self.type} {self.kind}"

    @property
    def stored(self) -> bool:
        """True if the table stores the values that an insert gives for this column."""
        return self.kind in _STORED_KINDS

    def takes_values(self, name: str) -> bool:
        """True if the table stores the values that the worker gives for this column; coordinates are MATERIALIZED."""
        return self.stored or (name in COORDINATES and self.kind == "MATERIALIZED")


def read_columns(client: Any, database: str) -> dict[str, dict[str, LiveColumn]]:
    """Return the columns by name, for each table of the database.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    columns: dict[str, dict[str, LiveColumn]] = {}
    for table, name, column_type, kind in all_rows(client, _COLUMNS, {"database": database}):
        columns.setdefault(table, {})[name] = LiveColumn(column_type, kind)
    return columns


def parse_columns(description: str) -> dict[str, LiveColumn]:
    """Parse the description of a table, which the server sends before it takes rows; return the columns by name."""
    lines = (_LINE.match(line) for line in description.split("\n"))
    return {
        _unescaped(line["name"]): LiveColumn(_unescaped(line["type"]), line["kind"] or "") for line in lines if line
    }


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


class CheckedTable:
    """A table whose columns were checked; it refuses inserts once they have changed.

    Args:
        table: name of a table in the configured database.
        types: ClickHouse type of each column that inserts fill, by name.
        settings: server and database, for messages.
    """

    def __init__(self, table: str, types: Mapping[str, str], settings: ClickHouseSettings) -> None:
        self._types = dict(types)
        self._where = f"table {settings.database}.{table} at {settings.address}"
        self._left: set[str] | None = None  # columns that inserts leave to the server; None before the first check
        self._log = structlog.get_logger("chimera.tables")

    def check(self, found: Mapping[str, LiveColumn]) -> None:
        """Compare the columns of the table now with the checked ones.

        A column may be added if it has a default, as a rolling upgrade does: rows of this version then have that
        default, and the log names the column once. Order, comments, codecs and defaults of columns may change, too.

        Args:
            found: all columns of the table, or those that the insert fills.

        Raises:
            HaltError: a column has another type, is gone, is computed now, or was added without a default.
        """
        for name, expected in self._types.items():
            column = found.get(name)
            if column is None or not column.takes_values(name) or not _same(column.type, expected):
                raise self._altered(name, expected, "none" if column is None else str(column))
        for name, column in found.items():
            if name not in self._types and not column.kind:
                raise self._altered(name, "none, or one with a default", str(column))
        self._name_added({name: column for name, column in found.items() if name not in self._types})

    def _name_added(self, left: Mapping[str, LiveColumn]) -> None:
        """Name the columns that were added since the first check; the worker has named the others at its start."""
        added = [name for name in left if self._left is not None and name not in self._left]
        self._left = (self._left or set()) | left.keys()
        if added:
            columns = ", ".join(f"{name} {left[name].type} {left[name].kind}" for name in added)
            self._log.info("columns were added, they are left to their defaults", table=self._where, columns=columns)

    def _altered(self, name: str, expected: str, found: str) -> HaltError:
        return HaltError(
            f"{self._where}: column {name}: expected {expected}, found {found}: altered since the worker checked the "
            "table at its start; nothing was inserted: change it back, or start the worker that fits the table"
        )


def _same(one: str, other: str) -> bool:
    return one.replace(" ", "") == other.replace(" ", "")
