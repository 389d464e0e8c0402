"""Rows that the TTL of a table has expired; the server drops them at some later moment."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from clickhouse_driver.errors import ServerException
from numpy.typing import NDArray

from pipeline.clickhouse.codes import Code
from pipeline.columns import Mask

_DEFINITION = "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"
_CLAUSE = re.compile(r"\bTTL (?P<rules>.*?)(?: SETTINGS [^()']*)?$", re.DOTALL)
_ACTION = re.compile(r" (?P<action>TO DISK|TO VOLUME|RECOMPRESS|DELETE|GROUP BY|WHERE)\b")
_MOVES = {"TO DISK", "TO VOLUME", "RECOMPRESS"}  # these keep the rows
# Times are written as the server's column has them; both forms are seconds or milliseconds since 1970.
_COLUMNS = {"ts": ("DateTime64(3, 'UTC')", "toUnixTimestamp64Milli(ts)"), "hour": ("DateTime", "toUnixTimestamp(hour)")}


def expired_times(client: Any, table: str, column: str, times: NDArray[Any]) -> Mask:
    """Return the mask of the times whose rows the table's TTL has expired by now, by the server's clock.

    A condition of the TTL (`DELETE WHERE`) counts as met. A TTL that depends on other columns counts as over.

    Args:
        client: connected, with the table's database as default.
        table: name of a table with an engine of the MergeTree family.
        column: `ts`, in milliseconds, or `hour`, in seconds.
        times: values of the column, since 1970.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    definition = client.execute(_DEFINITION, {"table": table})
    rules = list(_deleting_rules(definition[0][0])) if definition else []
    if not rules:
        return np.zeros(len(times), np.bool_)
    column_type, number = _COLUMNS[column]
    sent = {
        "name": "times",
        "structure": [(column, column_type)],
        "data": [{column: time} for time in np.unique(times).tolist()],
    }
    over = " OR ".join(f"toDateTime({rule}) <= now()" for rule in rules)
    try:
        expired = client.execute(f"SELECT {number} FROM times WHERE {over}", external_tables=[sent])  # noqa: S608
    except ServerException as error:
        if error.code != Code.UNKNOWN_IDENTIFIER:
            raise
        return np.ones(len(times), np.bool_)
    return np.isin(times, np.array([time for (time,) in expired], np.int64))


def _deleting_rules(definition: str) -> Iterator[str]:
    """Yield the expressions of a table's TTL after which rows are deleted or merged into others."""
    clause = _CLAUSE.search(definition)
    for rule in _split(clause["rules"]) if clause else ():
        action = _ACTION.search(rule)
        if action is None or action["action"] not in _MOVES:
            yield rule[: action.start()] if action else rule


def _split(rules: str) -> Iterator[str]:
    """Split a list at the commas outside of parentheses and of quoted text."""
    depth, quoted, begin = 0, False, 0
    for at, char in enumerate(rules):
        if char == "'":
            quoted = not quoted
        elif not quoted:
            depth += (char == "(") - (char == ")")
            if char == "," and depth == 0:
                yield rules[begin:at].strip()
                begin = at + 1
    yield rules[begin:].strip()
