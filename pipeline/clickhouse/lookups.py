"""Look-ups whose answer is whole, or an error.

The server may end a query that is killed (`KILL QUERY`) without an error, and without some or all of its rows. Missing
rows would then be taken for lost ones, and be inserted a second time. An aggregate of all rows is one row, even if
there are none: it arrives whole or not at all. A stream that is too long for that has a mark in its last row.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import UnavailableError


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
        raise ended_early()
    rows: list[tuple[Any, ...]] = answer[0][0]
    return rows


def named_rows(client: Any, query: str, **options: Any) -> tuple[list[tuple[Any, ...]], list[tuple[str, str]]]:
    """Return all rows of a query, in its order, and name and type of its columns.

    Args and Raises: as for `all_rows`.
    """
    ((count,),) = all_rows(client, f"SELECT count() FROM ({query})", **options)  # noqa: S608 (a query of ours)
    rows, columns = client.execute(
        query, with_column_types=True, **options
    )  # the driver reads no Decimal within a tuple
    if len(rows) < count or not columns:
        raise ended_early()
    return rows, columns


def marked_rows(client: Any, query: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query as they come, without its first column; read the iterator to its end.

    Args:
        client: connected.
        query: a SELECT whose first column is true in its last row alone, which isn't yielded.

    Raises:
        UnavailableError: the server ended the query before that row; another attempt may succeed.
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    whole = False
    for last, *row in client.execute_iter(query):
        whole = whole or last
        if not last:
            yield tuple(row)
    if not whole:
        raise ended_early()


def ended_early() -> UnavailableError:
    """Return the error for an answer that isn't whole."""
    return UnavailableError("ClickHouse ended a query without its whole result, as if somebody had killed it")
