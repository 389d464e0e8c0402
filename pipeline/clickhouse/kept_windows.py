"""Migrations that widen deduplication windows, and the tables whose windows are as wide already.

An operator may have set a wider window than this version needs. Such a migration would narrow it, and the server would
forget the tokens outside of it: an insert that is repeated afterwards would be stored twice.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.clickhouse.deduplication import window_setting
from pipeline.clickhouse.lookups import all_rows

_COMMENT = re.compile(r"--[^\n]*")
_WIDENING = re.compile(
    r"\s*ALTER TABLE (?P<table>\w+) MODIFY SETTING(?P<values>(\s+\w+deduplication_window = \d+,?)+)\s*;?\s*"
)
_VALUE = re.compile(r"(\w+) = (\d+)")
_TABLES = "SELECT name, engine, engine_full FROM system.tables WHERE database = %(database)s"


def kept_windows(client: Any, database: str, files: Iterable[Path]) -> tuple[Path, ...]:
    """Return the migrations that only set the window of a table which remembers as many blocks or more already.

    Args:
        client: connected; its default database may be another.
        database: may be missing.
        files: migrations of one statement each.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    wanted = {path: widening for path in files if (widening := _widening(path))}
    if not wanted:
        return ()
    rows = all_rows(client, _TABLES, {"database": database})
    tables = {name: (window_setting(engine), definition) for name, engine, definition in rows}
    return tuple(
        path for path, (table, values) in wanted.items() if table in tables and _as_wide(*tables[table], values)
    )


def _widening(path: Path) -> tuple[str, dict[str | None, int]] | None:
    """Table and values of a migration that only sets windows; None for any other."""
    match = _WIDENING.fullmatch(_COMMENT.sub("", path.read_text(encoding="utf-8")))
    return match and (match["table"], {name: int(value) for name, value in _VALUE.findall(match["values"])})


def _as_wide(setting: str | None, definition: str, values: Mapping[str | None, int]) -> bool:
    live = re.search(rf"\b{setting} = (\d+)", definition)
    return setting in values and live is not None and int(live[1]) >= values[setting]
