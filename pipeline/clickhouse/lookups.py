"""Look-ups whose answer is whole, or an error.

The server may end a query that is killed (`KILL QUERY`) without an error, and without some or all of its rows. Missing
rows would then be taken for lost ones, and be inserted a second time. An aggregate of all rows is one row, even if
there are none: it arrives whole or not at all.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import UnavailableError

CUT_SHORT = "ClickHouse ended a look-up without its result, as if somebody had killed the query"
"""Message for a look-up that isn't whole."""


def all_rows(client: Any, query: str, params: Mapping[str, Any] | None = None, **options: Any) -> list[tuple[Any, ...]]:
    """Return all rows of a query, in its order.

    Args:
        client: connected.
        query: a SELECT or EXPLAIN.
        params: values for the query's placeholders.
        options: as for the driver's `Client.execute`.

    Raises:
        UnavailableError: the server ended the query before its result was whole; another attempt may succeed.
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    answer = client.execute(f"SELECT groupArray(tuple(*)) FROM ({query})", params, **options)  # noqa: S608 (a query of ours)
    if not answer:
        raise UnavailableError(CUT_SHORT)
    rows: list[tuple[Any, ...]] = answer[0][0]
    return rows
