"""Looks whether the rows of a repeated insert are in the table.

Of an hour of session_stats, all sessions are asked for. Of a micro-batch, some rows tell, and here is why one looks:

A plain MergeTree writes a deduplication token to its disk before it commits the part. Killed in between, it drops the
repeated insert as a duplicate of rows that it doesn't have (seen with 26.9: 6 of 534 inserts that were repeated after a
kill -9). Replicated and shared engines write both in one transaction, and may be read from a replica that lags: there
the token's word is taken. A part is there as a whole or not at all, so a few rows of each day tell.
"""

import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.columns import Column, Mask

_PROBES = 16  # rows of each day
_DAY_MS = 86_400_000
_ENGINE = "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"
# What tells a row from the others of its day, and how it is written: a ReplacingMergeTree keeps one row of each key.
_IDENTITIES = {
    "MergeTree": ("(ts, `{key}`)", "(fromUnixTimestamp64Milli({time}, 'UTC'), toUUID('{uuid}'))"),
    "ReplacingMergeTree": ("`{key}`", "toUUID('{uuid}')"),
}


def absent(client: Any, table: str, key: str, columns: Mapping[str, Column]) -> Mask:
    """The rows of a block whose day isn't in the table.

    Args:
        client: connected, with the table's database as default.
        table: partitioned by the day of `ts`.
        key: name of a column of UUIDs.
        columns: the block.
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
        # Rows like these may be there from elsewhere, or have been deleted since: most of them decide.
        missing[rows] = 2 * int(client.execute(query)[0][0]) < len(literals)
    return missing


def sessions(client: Any, table: str, hour: int) -> frozenset[bytes]:
    """The sessions that an hourly table has rows of.

    Args:
        client: connected, with the table's database as default.
        table: with the columns `hour` and `session_id`.
        hour: its beginning, seconds since 1970.
    """
    query = f"SELECT session_id FROM `{table}` WHERE hour = toDateTime({hour}, 'UTC')"  # noqa: S608 (a name of ours)
    return frozenset(session.bytes for (session,) in client.execute(query))
