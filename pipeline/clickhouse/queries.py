"""Queries of the specification, read from queries.sql: analysts run them, and tests check them."""

import re
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).with_name("queries.sql")
_ENTRY = re.compile(
    r"^-- name: (?P<name>\w+)\n(?:-- refused: (?P<refused>\d+)\n)?(?P<sql>-- (?P<title>.+)\n[^;]+;)$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Query:
    """One query; it names no database, so it reads the tables of the connection's default database."""

    name: str
    title: str
    sql: str
    refused: int | None
    """Error code with which ClickHouse refuses the query; then `<name>_corrected` answers the same question."""


def load_queries() -> dict[str, Query]:
    """Return all queries by name, in the order of the specification."""
    entries = _ENTRY.finditer(_FILE.read_text(encoding="utf-8"))
    return {
        entry["name"]: Query(
            entry["name"], entry["title"], entry["sql"], int(entry["refused"]) if entry["refused"] else None
        )
        for entry in entries
    }
