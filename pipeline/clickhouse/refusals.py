"""Search for the rows that ClickHouse refuses for their data; it stores none.

A row that the schema allows and the table refuses shows that the two disagree. The likely cause is a constraint that
someone added. A few such rows become dead letters. The worker halts if there are more, or if no single row is refused.
"""

import numpy as np

from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column, DictionaryColumn, Rejection, Rows, select
from pipeline.errors import HaltError, Reason

MOST_ROWS = 100
"""Most refused rows in one micro-batch. To find them takes at most 2,000 probes of a few milliseconds each."""


def find_refused(sink: Sink, table: str, rows: Rows) -> Rows:
    """Split a refused block: return the rows that the table accepts, and a rejection for each row that it refuses.

    Raises:
        HaltError: the table refuses no single row, or too many.
        clickhouse_driver.errors.Error, OSError, EOFError: as `Sink.refusal_code`.
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
                f"table {table}: ClickHouse refuses more than {MOST_ROWS} rows of one micro-batch, the last with error "
                f"code {code}; expected it to accept rows that the schema allows: check the table's constraints"
            )
    if not codes:
        raise HaltError(
            f"table {table}: ClickHouse refuses a block for its data, but none of its rows alone; "
            "check the materialized views that read from the table"
        )
    return _without(rows, codes)


def _without(rows: Rows, codes: dict[int, int]) -> Rows:
    keep = np.ones(len(rows), np.bool_)
    keep[list(codes)] = False
    rejections = (
        # Only the code: the message of the server may repeat the data.
        Rejection(int(rows.positions[row]), Reason.REFUSED_BY_CLICKHOUSE, f"error code {code}")
        for row, code in codes.items()
    )
    columns = {name: select(column, keep) for name, column in rows.columns.items()}
    return Rows(columns, rows.positions[keep], tuple(rejections))


def _part(column: Column, part: slice) -> Column:
    return DictionaryColumn(column.codes[part], column.values) if isinstance(column, DictionaryColumn) else column[part]
