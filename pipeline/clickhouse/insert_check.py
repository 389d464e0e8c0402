"""Checks that the rows of a repeated insert are in the table.

For an hour of session_stats the check reads all sessions. For a micro-batch it looks for a sample of the rows.

The check is needed because a plain MergeTree writes a deduplication token to its disk before it commits the part. If
the server is killed in between, it drops the repeated insert as a duplicate of rows that it doesn't have (seen with
26.9: 6 of 534 inserts that were repeated after a kill -9). Replicated and shared engines write both in one transaction,
and a lagging replica may serve the read; for them the check trusts the token. A part is stored as a whole or not at
all, so a few rows of each day are enough. One query looks for all of them, in the parts of their days only.

Rows that the table's TTL has expired are never missing.
"""

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.row_policies import check_all_rows_seen
from pipeline.clickhouse.ttl import expired_times
from pipeline.columns import Column, Mask

_PROBES = 16  # rows of each day
_DAY_MS = 86_400_000
_ENGINE = "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"
# Expression that identifies a row within its day. A ReplacingMergeTree keeps one row of each key.
_IDENTITIES = {"MergeTree": "ts", "ReplacingMergeTree": "toDate(ts)"}


def missing_rows(client: Any, table: str, key: str, columns: Mapping[str, Column]) -> Mask:
    """Return the mask of the rows whose day is missing from the table.

    Args:
        client: connected, with the table's database as default.
        table: name of a table that is partitioned by the day of `ts`.
        key: name of a column of UUIDs.
        columns: columns of the block, by name.

    Raises:
        HaltError: a row policy hides rows of the table.
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    times, ids = np.asarray(columns["ts"]), np.asarray(columns[key])
    missing = np.zeros(len(times), np.bool_)
    engine = all_rows(client, _ENGINE, {"table": table})[0][0]
    if engine not in _IDENTITIES:
        return missing
    days, kept = times // _DAY_MS, ~expired_times(client, table, "ts", times)
    probes = list(_probes(days, kept))
    if not probes:
        return missing
    exact = engine == "MergeTree"
    identities = [(int(times[row]) if exact else int(days[row]), uuid.UUID(bytes=ids[row].tobytes())) for row in probes]
    wanted = Counter(time // _DAY_MS if exact else time for time, _ in set(identities))
    found = _found(client, table, key, _IDENTITIES[engine], [(int(times[row]), ids[row].tobytes()) for row in probes])
    seen = {(time if exact else time // _DAY_MS, key_found) for time, key_found in found}
    stored = Counter(time // _DAY_MS if exact else time for time, _ in seen & set(identities))
    # Another insert may have brought equal rows, or someone may have deleted some since: the majority decides.
    gone = [day for day, count in wanted.items() if 2 * stored[day] < count]
    missing = np.isin(days, gone) & kept
    if missing.any():
        check_all_rows_seen(client, table)
    return missing


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
    replaces = "Replacing" in all_rows(client, _ENGINE, {"table": table})[0][0]
    unit = _DAY_MS if replaces else 1
    expression = _IDENTITIES["ReplacingMergeTree" if replaces else "MergeTree"]
    wanted = {(time // unit, uuid.UUID(bytes=of)) for time, of in zip(times, ids, strict=True)}
    found = _found(client, table, key, expression, list(zip(times, ids, strict=True)))
    stored = wanted & {(time // unit, of) for time, of in found}
    return 2 * len(stored) >= len(wanted)


def _probes(days: NDArray[np.int64], kept: Mask) -> Iterator[int]:
    """Yield the indices of a few rows of each day, among those that are kept."""
    rows = np.flatnonzero(kept)
    order = rows[np.argsort(days[rows], kind="stable")]
    for of_day in np.split(order, np.flatnonzero(np.diff(days[order])) + 1):
        if len(of_day):
            yield from np.unique(of_day[np.linspace(0, len(of_day) - 1, _PROBES, dtype=np.int64)]).tolist()


def _found(
    client: Any, table: str, key: str, time: str, probes: list[tuple[int, bytes]]
) -> list[tuple[int, uuid.UUID]]:
    """Return time in milliseconds and key of the rows that match a probe; several rows may match one."""
    sent = {
        "name": "probes",
        "structure": [("ts", "DateTime64(3, 'UTC')"), ("id", "UUID")],
        "data": [{"ts": at, "id": uuid.UUID(bytes=of)} for at, of in probes],
    }
    query = (
        f"SELECT DISTINCT toUnixTimestamp64Milli(ts), `{key}` FROM `{table}` "  # noqa: S608 (names of ours)
        f"WHERE ({time}, `{key}`) IN (SELECT {time}, id FROM probes)"
    )
    return [(time, key) for time, key in all_rows(client, query, external_tables=[sent])]


def stored_sessions(client: Any, table: str, hour: int) -> frozenset[bytes]:
    """Return the sessions that have a row of an hour in an hourly table, as 16 bytes each.

    Args:
        client: connected, with the table's database as default.
        table: name of a table with the columns `hour` and `session_id`.
        hour: first second of the hour, in seconds since 1970.

    Raises:
        HaltError: a row policy hides rows of the table.
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    check_all_rows_seen(client, table)
    query = f"SELECT session_id FROM `{table}` WHERE hour = toDateTime({hour}, 'UTC')"  # noqa: S608 (a name of ours)
    return frozenset(session.bytes for (session,) in all_rows(client, query))
