"""Rows that the TTL of a table has expired; the server drops them at some later moment."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from clickhouse_driver.errors import ServerException
from numpy.typing import NDArray

from pipeline.clickhouse.codes import Code
from pipeline.clickhouse.lookups import all_rows
from pipeline.columns import Mask

_DEFINITION = "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"
_WORD = re.compile(r"""'(?:\\.|''|[^'\\])*'|`(?:\\.|[^`\\])*`|"(?:\\.|[^"\\])*"|.""", re.DOTALL)
_CLAUSE = re.compile(r" TTL (?P<rules>.*?)(?= SETTINGS |$)", re.DOTALL)
_ACTION = re.compile(r" (?P<action>TO DISK|TO VOLUME|RECOMPRESS|DELETE|GROUP BY|WHERE)\b")
_ASSIGNMENT = re.compile(r"\s*\S+ = ")
_MOVES = {"TO DISK", "TO VOLUME", "RECOMPRESS"}  # these keep the rows
# Times are written as the server's column has them; both forms are seconds or milliseconds since 1970.
_COLUMNS = {"ts": ("DateTime64(3, 'UTC')", "toUnixTimestamp64Milli(ts)"), "hour": ("DateTime", "toUnixTimestamp(hour)")}


def expired_times(client: Any, table: str, column: str, times: NDArray[Any], *, certainly: bool = False) -> Mask:
    """Return the mask of the times whose rows the table's TTL has expired by now, by the server's clock.

    By default, rows under a condition (`DELETE WHERE`) count as expired, and so do all rows if the TTL depends on other
    columns. With `certainly`, neither do.

    Args:
        client: connected, with the table's database as default.
        table: name of a table with an engine of the MergeTree family.
        column: `ts`, in milliseconds, or `hour`, in seconds.
        times: values of the column, since 1970.
        certainly: True to mark only times of which the table can't have rows any more.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    definition = all_rows(client, _DEFINITION, {"table": table})
    expired = np.zeros(len(times), np.bool_)
    for rule, conditional in _deleting_rules(definition[0][0]) if definition else ():
        if not (certainly and conditional):
            expired |= _over(client, rule, column, times, otherwise=not certainly)
    return expired


def ttl_clause(definition: str) -> str:
    """Return the rules of a table's TTL as the server writes them; empty without any.

    Args:
        definition: `engine_full` of system.tables.
    """
    clause = _CLAUSE.search(_outline(definition))
    return definition[slice(*clause.span("rules"))] if clause else ""


def _over(client: Any, rule: str, column: str, times: NDArray[Any], *, otherwise: bool) -> Mask:
    """Return the mask of the times at which a rule is over; `otherwise` for all if it depends on another column."""
    column_type, number = _COLUMNS[column]
    sent = {
        "name": "times",
        "structure": [(column, column_type)],
        "data": [{column: time} for time in np.unique(times).tolist()],
    }
    query = f"SELECT {number} FROM times WHERE toDateTime({rule}) <= now()"  # noqa: S608 (the table's own expression)
    try:
        over = all_rows(client, query, external_tables=[sent])
    except ServerException as error:
        if error.code != Code.UNKNOWN_IDENTIFIER:
            raise
        return np.full(len(times), otherwise)
    return np.isin(times, np.array([time for (time,) in over], np.int64))


def _deleting_rules(definition: str) -> Iterator[tuple[str, bool]]:
    """Yield the expressions of a table's TTL after which rows are deleted or merged, and if some may stay."""
    outline = _outline(definition)
    for begin, end in _rules(outline):
        action = _ACTION.search(outline, begin, end)
        if action is None or action["action"] not in _MOVES:
            conditional = " WHERE " in outline[begin:end] or " GROUP BY " in outline[begin:end]
            yield definition[begin : action.start() if action else end].strip(), conditional


def _outline(definition: str) -> str:
    """Return a text of the same length without all that is quoted or in parentheses."""
    depth, parts = 0, []
    for part in _WORD.findall(definition):
        depth += (part in "([") - (part in ")]")
        parts.append(part if depth == 0 and len(part) == 1 else "_" * len(part))
    return "".join(parts)


def _rules(outline: str) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each rule of a TTL; a comma may also part the keys and the assignments of a GROUP BY."""
    clause = _CLAUSE.search(outline)
    if clause is None:
        return
    begin, stop = clause.span("rules")
    for comma in (*(at for at in range(begin, stop) if outline[at] == ","), stop):
        _, grouped, after = outline[begin:comma].partition(" GROUP BY ")
        if comma < stop and grouped and (" SET " not in after or _ASSIGNMENT.match(outline, comma + 1, stop)):
            continue
        yield begin, comma
        begin = comma + 1
