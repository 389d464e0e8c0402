"""Checks that the rows of a repeated insert are in the table.

For an hour of session_stats the check reads all sessions. For a micro-batch it looks for a sample of the rows.

The check is needed because a plain MergeTree writes a deduplication token to its disk before it commits the part. If
the server is killed in between, it drops the repeated insert as a duplicate of rows that it doesn't have (seen with
26.9: 6 of 534 inserts that were repeated after a kill -9). Replicated and shared engines write both in one transaction,
and a lagging replica may serve the read; for them the check trusts the token. A part is stored as a whole or not at
all, so a few rows of each day are enough.
"""

import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.clickhouse.row_policies import check_all_rows_seen
from pipeline.columns import Column, Mask

_PROBES = 16  # rows of each day
_DAY_MS = 86_400_000
_ENGINE = "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"
# Expression that identifies a row within its day, and its value as SQL. A ReplacingMergeTree keeps one row of each key.
_IDENTITIES = {
    "MergeTree": ("(ts, `{key}`)", "(fromUnixTimestamp64Milli({time}, 'UTC'), toUUID('{uuid}'))"),
    "ReplacingMergeTree": ("`{key}`", "toUUID('{uuid}')"),
}


def missing_rows(client: Any, table: str, key: str, columns: Mapping[str, Column]) -> Mask:
    """Mask of the rows whose day is missing from the table.

    Args:
        client: connected, with the table's database as default.
        table: partitioned by the day of `ts`.
        key: name of a column of UUIDs.
        columns: the block.

    Raises:
        HaltError: a row policy hides rows of the table.
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    times, ids = np.asarray(columns["ts"]), np.asarray(columns[key])
    days = times // _DAY_MS
    missing = np.zeros(len(times), np.bool_)
    engine = client.execute(_ENGINE, {"table": table})[0][0]
    if engine not in _IDENTITIES:
        return missing
    identity, literal = (form.replace("{key}", key) for form in _IDENTITIES[engine])
    for day in np.unique(days).tolist():
        rows = np.flatnonzero(days == day)
        probes = np.unique(rows[np.linspace(0, len(rows) - 1, _PROBES, dtype=np.int64)])
        literals = {literal.format(time=times[row], uuid=uuid.UUID(bytes=ids[row].tobytes())) for row in probes}
        query = (
            f"SELECT uniqExact({identity}) FROM `{table}` "  # noqa: S608 (names of ours, numbers and UUIDs)
            f"WHERE toDate(ts) = toDate({day}) AND {identity} IN ({', '.join(literals)})"
        )
        # Another insert may have brought equal rows, or someone may have deleted some since: the majority decides.
        missing[rows] = 2 * int(client.execute(query)[0][0]) < len(literals)
    if missing.any():
        check_all_rows_seen(client, table)
    return missing


def stored_sessions(client: Any, table: str, hour: int) -> frozenset[bytes]:
    """Sessions that have a row of an hour in an hourly table, as 16 bytes each.

    Args:
        client: connected, with the table's database as default.
        table: with the columns `hour` and `session_id`.
        hour: its first second, in seconds since 1970.

    Raises:
        HaltError: a row policy hides rows of the table.
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    check_all_rows_seen(client, table)
    query = f"SELECT session_id FROM `{table}` WHERE hour = toDateTime({hour}, 'UTC')"  # noqa: S608 (a name of ours)
    return frozenset(session.bytes for (session,) in client.execute(query))
