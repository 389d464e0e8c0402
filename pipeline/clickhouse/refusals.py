"""Search for the rows that ClickHouse refuses for their data; it stores none.

A row that the schema allows and the table refuses shows that the two disagree. The likely cause is a constraint that
someone added. A few such rows become dead letters. The worker halts if there are more, or if no single row is refused.
"""

from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import replace

import numpy as np

from pipeline.columns import Column, DictionaryColumn, ItemsColumn, NullableColumn, Rejection, Rows, take
from pipeline.errors import HaltError, Reason

MOST_ROWS = 100
"""Most refused rows in one micro-batch. To find them takes at most 2,000 probes of a few milliseconds each."""


async def find_refused(probe: Callable[[Mapping[str, Column]], Awaitable[int | None]], table: str, rows: Rows) -> Rows:
    """Split a refused block: return the rows that the table accepts, and a rejection for each row that it refuses.

    There is no rejection if the table refuses no single row.

    Args:
        probe: `Sink.refusal_code` of the table. It tries again by itself if the server doesn't answer, so that the
            search goes on where it is.
        table: name of the table, for messages.
        rows: the refused block.

    Raises:
        HaltError: the table refuses too many rows.
        Exception: of the probe.
    """
    search = _search(table, rows)
    columns = next(search)
    while True:
        code = await probe(columns)
        try:
            columns = search.send(code)
        except StopIteration as end:
            found: Rows = end.value
            return found


def find_refused_now(probe: Callable[[Mapping[str, Column]], int | None], table: str, rows: Rows) -> Rows:
    """Do what `find_refused` does, with a probe that blocks."""
    search = _search(table, rows)
    columns = next(search)
    while True:
        code = probe(columns)
        try:
            columns = search.send(code)
        except StopIteration as end:
            found: Rows = end.value
            return found


def _search(table: str, rows: Rows) -> Generator[Mapping[str, Column], int | None, Rows]:
    """Yield the columns of each part that is to be tested, and take the code with which the server refuses them."""
    codes: dict[int, int] = {}  # by the index of the row
    parts = [slice(0, len(rows))]
    while parts:
        part = parts.pop()
        code = yield {name: _part(column, part) for name, column in rows.columns.items()}
        if code is None:
            continue
        if part.stop - part.start > 1:
            middle = (part.start + part.stop) // 2
            parts += [slice(middle, part.stop), slice(part.start, middle)]
            continue
        codes[part.start] = code
        if len(codes) > MOST_ROWS:
            raise HaltError(
                f"table {table}: ClickHouse refuses more than {MOST_ROWS} rows of one micro-batch, the last with error "
                f"code {code}; expected it to accept rows that the schema allows: check the table's constraints"
            )
    return _without(rows, codes)


def refused_as_a_block(table: str) -> HaltError:
    """Return the error for a block that the server refuses again after no row of it was refused alone."""
    return HaltError(
        f"table {table}: ClickHouse refuses a block for its data, but none of its rows alone; "
        "check the materialized views that read from the table"
    )


def _without(rows: Rows, codes: dict[int, int]) -> Rows:
    keep = np.ones(len(rows), np.bool_)
    keep[list(codes)] = False
    rejections = (
        # Only the code: the message of the server may repeat the data.
        Rejection(int(rows.positions[row]), Reason.REFUSED_BY_CLICKHOUSE, f"error code {code}")
        for row, code in codes.items()
    )
    return replace(rows.where(keep), rejections=tuple(rejections))


def _part(column: Column, part: slice) -> Column:
    if isinstance(column, DictionaryColumn):
        return DictionaryColumn(column.codes[part], column.values)
    if isinstance(column, (NullableColumn, ItemsColumn)):
        return take(column, np.arange(part.start, part.stop))
    return column[part]
