"""Rows that are known by time and key: those that were stored without coordinates, and the first rows of a log."""

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.clickhouse.coordinates import TOPIC_ID, WITHOUT
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.row_policies import check_all_rows_seen
from pipeline.columns import Column, Mask

_PROBES = 16  # rows of each day
_DAY_MS = 86_400_000
_ENGINE = "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"
_ANY = "1"
_WITHOUT_COORDINATES = f"{TOPIC_ID} = toUUID('{WITHOUT}')"


def stored_without_coordinates(client: Any, table: str, key: str, columns: Mapping[str, Column]) -> Mask:
    """Return the mask of the rows of those days whose rows a version without coordinates has stored.

    A part is stored as a whole or not at all, so the majority of a few rows of each day decides. One query looks for
    all of them, in the parts of their days only.

    Args:
        client: connected, with the table's database as default.
        table: name of a table that is partitioned by the day of `ts`.
        key: name of a column of UUIDs.
        columns: the rows, at least one.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    times, ids = np.asarray(columns["ts"]), np.asarray(columns[key])
    days, unit = times // _DAY_MS, _unit(client, table)
    probes = [(int(times[row]), ids[row].tobytes()) for row in _probes(days)]
    wanted = {(time // unit, uuid.UUID(bytes=of)) for time, of in probes}
    stored = wanted & _found(client, table, key, probes, (unit, _WITHOUT_COORDINATES))
    of_day, found = (Counter(at * unit // _DAY_MS for at, _ in group) for group in (wanted, stored))
    return np.isin(days, [day for day, count in of_day.items() if 2 * found[day] >= count])


def mostly_stored(client: Any, table: str, key: str, columns: Mapping[str, Column]) -> bool:
    """Tell whether at least half of some rows are in the table; a row is known by its time and key.

    Args:
        client: connected, with the table's database as default.
        table: with the columns `ts` and `key`.
        key: name of a column of UUIDs.
        columns: the rows, some tens of them.

    Raises:
        HaltError: a row policy hides rows of the table.
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    times, ids = np.asarray(columns["ts"]).tolist(), [row.tobytes() for row in np.asarray(columns[key])]
    if not times:
        return False
    check_all_rows_seen(client, table)
    unit, rows = _unit(client, table), list(zip(times, ids, strict=True))
    wanted = {(time // unit, uuid.UUID(bytes=of)) for time, of in rows}
    return 2 * len(wanted & _found(client, table, key, rows, (unit, _ANY))) >= len(wanted)


def _unit(client: Any, table: str) -> int:
    """Return the ms within which equal keys mean one row: a day for a ReplacingMergeTree, else 1."""
    return _DAY_MS if "Replacing" in all_rows(client, _ENGINE, {"table": table})[0][0] else 1


def _probes(days: NDArray[np.int64]) -> Iterator[int]:
    """Yield the indices of a few rows of each day."""
    order = np.argsort(days, kind="stable")
    for of_day in np.split(order, np.flatnonzero(np.diff(days[order])) + 1):
        yield from np.unique(of_day[np.linspace(0, len(of_day) - 1, _PROBES, dtype=np.int64)]).tolist()


def _found(
    client: Any, table: str, key: str, probes: Sequence[tuple[int, bytes]], where: tuple[int, str]
) -> set[tuple[int, uuid.UUID]]:
    """Return time and key of the rows that match a probe; `where` has the unit of the time, in ms, and a condition."""
    sent = {
        "name": "probes",
        "structure": [("ts", "DateTime64(3, 'UTC')"), ("id", "UUID")],
        "data": [{"ts": at, "id": uuid.UUID(bytes=of)} for at, of in probes],
    }
    unit, condition = where
    time = "ts" if unit == 1 else "toDate(ts)"
    query = (
        f"SELECT DISTINCT toUnixTimestamp64Milli(ts), `{key}` FROM `{table}` "  # noqa: S608 (names of ours)
        f"WHERE ({time}, `{key}`) IN (SELECT {time}, id FROM probes) AND {condition}"
    )
    return {(at // unit, found) for at, found in all_rows(client, query, external_tables=[sent])}
