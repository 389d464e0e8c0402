"""Check for row policies: they hide rows of a table from some users.

A worker that can't see rows takes them for missing, and inserts them a second time. A repair of session_stats drops
rows whose events it can't see.
"""

import json
from collections.abc import Iterable
from typing import Any

from clickhouse_driver import errors

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.codes import Code
from pipeline.clickhouse.lookups import ended_early
from pipeline.config import ClickHouseSettings
from pipeline.errors import HaltError

_KEY = "Row level filter"  # in the plan of a query


def check_row_policies(settings: ClickHouseSettings, tables: Iterable[str]) -> None:
    """Check that the user sees all rows of these tables. A table that the user may not read is left out.

    Raises:
        HaltError: a row policy hides rows of a table.
        UnavailableError: the server doesn't answer.
    """
    with explained(settings), connect(settings) as client:
        for table in tables:
            try:
                check_all_rows_seen(client, table)
            except errors.ServerException as error:
                if error.code != Code.ACCESS_DENIED:
                    raise
                # The server refuses this user's look-ups, so no policy can hide rows from them unnoticed.
                client.disconnect()


def check_all_rows_seen(client: Any, table: str) -> None:
    """Check that no row policy hides rows of a table from the user; an empty table's policy isn't found.

    Args:
        client: connected, with the table's database as default.
        table: name of a table, of any engine.

    Raises:
        HaltError: a row policy hides rows.
        UnavailableError: the server ended the query before its result was whole.
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    query = f"EXPLAIN json = 1, actions = 1 SELECT 1 FROM `{table}`"  # noqa: S608 (a name of ours)
    # Not as `all_rows` asks: a user who is read-only may not select from an EXPLAIN. Half of a plan is no JSON.
    lines = [line for (line,) in client.execute(query)]
    try:
        plan = json.loads("\n".join(lines))
    except json.JSONDecodeError:
        raise ended_early() from None
    if _mentions_filter(plan):
        raise HaltError(
            f"table {table}: a row policy hides rows from this user; expected it to see all rows: hidden rows count as "
            "missing, so a worker would insert them a second time, and a repair would compute wrong rows; exclude the "
            "user from the policy"
        )


def _mentions_filter(plan: Any) -> bool:
    if isinstance(plan, dict):
        return any(key.startswith(_KEY) or _mentions_filter(value) for key, value in plan.items())
    return isinstance(plan, list) and any(map(_mentions_filter, plan))
