"""Rows of a micro-batch that the table lacks, by the coordinates of their records.

A repeated micro-batch is compared with the table before it is inserted: the rows that are missing are inserted, and
nothing else. It is compared once more after that, since a token may be known without its rows: a plain MergeTree writes
a deduplication token to its disk before it commits the part. If the server is killed in between, it drops the repeated
insert as a duplicate of rows that it doesn't have (seen with 26.9: 6 of 534 inserts that were repeated after a kill).

Some rows are done although none has their coordinates:

- a ReplacingMergeTree has replaced the row by a newer one of the same key;
- a version without coordinates stored the row: the token was known, and rows without coordinates are where the day's
  rows should be;
- the table's TTL has expired it: an insert has stored it, or was dropped because its token was known.

A replica that lags behind catches up before it is asked (`pipeline.clickhouse.catching_up`).

For an hour of session_stats the check reads all sessions.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np

from pipeline.clickhouse.catching_up import catch_up
from pipeline.clickhouse.coordinates import OFFSET, PARTITION, TOPIC_ID, Source, stored_offsets
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.row_policies import check_all_rows_seen
from pipeline.clickhouse.samples import stored_without_coordinates
from pipeline.clickhouse.ttl import expired_times
from pipeline.columns import Column, DictionaryColumn, ItemsColumn, Mask, NullableColumn, select

_DAY_MS = 86_400_000
_LAST_DAY = 65_535  # of Date, whose first is 1970-01-01
_TABLE = "SELECT engine, sorting_key FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"


def missing_rows(client: Any, table: str, key: str, columns: Mapping[str, Column], *, tried: bool) -> Mask:
    """Return the mask of the rows that the table lacks.

    Args:
        client: connected, with the table's database as default.
        table: one of the event tables.
        key: name of a column of UUIDs.
        columns: columns of the rows by name, with those of `pipeline.clickhouse.coordinates`; at least one row, all
            of one partition of a topic.
        tried: True if these rows were inserted right before: the server has stored them, or dropped them for a known
            token.

    Raises:
        HaltError: a row policy hides rows of the table.
        UnavailableError: the replica lags behind.
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    engine, sorting_key = all_rows(client, _TABLE, {"table": table})[0]
    offsets, times = np.asarray(columns[OFFSET]), np.asarray(columns["ts"])
    stored = stored_offsets(client, table, source_of(columns), offsets.min(), offsets.max(), times=times)
    missing: Mask = ~np.isin(offsets, stored)
    if missing.any():
        check_all_rows_seen(client, table)
    if missing.any() and "Replacing" in engine:
        names = [name.strip() for name in sorting_key.split(",")]
        identity = names if set(names) <= columns.keys() else [key]
        missing[missing] = ~_replaced(client, table, identity, _where(columns, missing))
    if missing.any() and tried:
        missing[missing] = ~expired_times(client, table, "ts", times[missing])
    if missing.any() and tried:
        missing[missing] = ~stored_without_coordinates(client, table, key, _where(columns, missing))
    return missing


def source_of(columns: Mapping[str, Column]) -> Source:
    """Return the partition that rows come from, by their columns; at least one row."""
    return Source(UUID(bytes=np.asarray(columns[TOPIC_ID])[0].tobytes()), int(np.asarray(columns[PARTITION])[0]))


def _where(columns: Mapping[str, Column], keep: Mask) -> dict[str, Column]:
    return {name: select(column, keep) for name, column in columns.items()}


def _replaced(client: Any, table: str, identity: Sequence[str], columns: Mapping[str, Column]) -> Mask:
    """Return the mask of the rows that a ReplacingMergeTree has replaced by one of the same day and key.

    The row with the latest time stays; of rows with equal times the one that was inserted last, which is, of one log,
    the one with the higher offset.
    """
    source, times, offsets = source_of(columns), np.asarray(columns["ts"]), np.asarray(columns[OFFSET])
    days = (times // _DAY_MS).clip(0, _LAST_DAY)
    keys = list(zip(*(_texts(columns[name]) for name in identity), strict=True))
    rivals = defaultdict[Any, list[tuple[int, Source, int]]](list)
    for day, at, of, offset, found in _of_keys(client, table, identity, np.unique(days).tolist(), set(keys)):
        rivals[day, found].append((at, Source(*of), offset))
    rows = zip(days.tolist(), keys, times.tolist(), offsets.tolist(), strict=True)
    return np.array(
        [
            any((at, of != source or newer > offset) > (time, False) for at, of, newer in rivals[day, each])
            for day, each, time, offset in rows
        ],
        np.bool_,
    )


def _of_keys(
    client: Any, table: str, identity: Sequence[str], days: Sequence[int], keys: Collection[tuple[str, ...]]
) -> list[tuple[Any, ...]]:
    """Return day, time, source, offset and key of the rows of these days that have one of the keys."""
    names, sent = ", ".join(f"toString(`{name}`)" for name in identity), [f"k{at}" for at in range(len(identity))]
    query = (
        f"SELECT toUInt32(toDate(ts)), toUnixTimestamp64Milli(ts), ({TOPIC_ID}, {PARTITION}), {OFFSET}, tuple({names}) "  # noqa: S608 (names of ours)
        f"FROM `{table}` WHERE toDate(ts) IN ({', '.join(f'toDate({day})' for day in days)}) "
        f"AND ({names}) IN (SELECT {', '.join(sent)} FROM wanted)"
    )
    wanted = {
        "name": "wanted",
        "structure": [(name, "String") for name in sent],
        "data": [dict(zip(sent, key, strict=True)) for key in keys],
    }
    return all_rows(client, query, external_tables=[wanted])


def _texts(column: Column) -> list[str]:
    """Return the values as the server's toString writes them."""
    if isinstance(column, np.ndarray):
        is_id = column.dtype == np.dtype("V16")
        if column.dtype == np.bool_:
            return ["true" if value else "false" for value in column]
        return [str(UUID(bytes=value.tobytes())) if is_id else str(value) for value in column]
    assert not isinstance(column, (NullableColumn, ItemsColumn))  # of a sorting key
    return [value.decode() for value in (column.to_list() if isinstance(column, DictionaryColumn) else column)]


def stored_sessions(client: Any, table: str, hour: int) -> frozenset[bytes]:
    """Return the sessions that have a row of an hour in an hourly table, as 16 bytes each.

    Args:
        client: connected, with the table's database as default.
        table: name of a table with the columns `hour` and `session_id`.
        hour: first second of the hour, in seconds since 1970.

    Raises:
        HaltError: a row policy hides rows of the table.
        UnavailableError: the replica lags behind.
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    check_all_rows_seen(client, table)
    catch_up(client, table)
    query = f"SELECT session_id FROM `{table}` WHERE hour = toDateTime({hour}, 'UTC')"  # noqa: S608 (a name of ours)
    return frozenset(session.bytes for (session,) in all_rows(client, query))
