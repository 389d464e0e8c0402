"""Finds the rows that ClickHouse refuses for their data, without storing any.

What a schema allows and its table refuses is a disagreement of the two: a constraint that somebody has added, most
likely. A few such rows are dead letters; more than that, or none that can be named, is for a person to look at.
"""

import numpy as np

from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column, DictionaryColumn, Rejection, Rows, select
from pipeline.errors import HaltError, Reason

MOST_ROWS = 100
"""Of one micro-batch. Finding so many takes two thousand probes at most, of a few milliseconds each."""


def find_refused(sink: Sink, table: str, rows: Rows) -> Rows:
    """The rows that are left of a block that was refused, and a rejection for each that is refused by itself.

    Raises:
        HaltError: no row is refused by itself, or too many are.
        clickhouse_driver.errors.Error, OSError, EOFError: as of `Sink.refusal`.
    """
    codes: dict[int, int] = {}  # by the index of the row
    parts = [slice(0, len(rows))]
    while parts:
        part = parts.pop()
        code = sink.refusal_code(table, {name: _part(column, part) for name, column in rows.columns.items()})
        if code is None:
            continue
        if part.stop - part.start > 1:
            middle = (part.start + part.stop) // 2
            parts += [slice(middle, part.stop), slice(part.start, middle)]
            continue
        codes[part.start] = code
        if len(codes) > MOST_ROWS:
            raise HaltError(
                f"table {table}: more than {MOST_ROWS} rows of one micro-batch are refused, the last with error code "
                f"{code}; expected that what the schema allows is taken: look at the table's constraints"
            )
    if not codes:
        raise HaltError(
            f"table {table}: a block is refused for its data, but none of its rows by itself; "
            "look at the views that are fed from the table"
        )
    return _without(rows, codes)


def _without(rows: Rows, codes: dict[int, int]) -> Rows:
    keep = np.ones(len(rows), np.bool_)
    keep[list(codes)] = False
    rejections = (
        # The message that comes with the code may repeat the data.
        Rejection(int(rows.positions[row]), Reason.REFUSED_BY_CLICKHOUSE, f"error code {code}")
        for row, code in codes.items()
    )
    columns = {name: select(column, keep) for name, column in rows.columns.items()}
    return Rows(columns, rows.positions[keep], tuple(rejections))


def _part(column: Column, part: slice) -> Column:
    return DictionaryColumn(column.codes[part], column.values) if isinstance(column, DictionaryColumn) else column[part]
