"""Storage of closed hours in session_stats: each row once, whichever worker stores it, and however often.

The token names topic, partition and hour. The rows of an hour are the same for every worker. ClickHouse forgets a token
in time, and a recovery may go back further than that. So a worker first looks for rows that may be stored already, by
hour and session.
"""

from collections.abc import Mapping
from concurrent.futures import Executor
from functools import partial

import numpy as np

from pipeline import metrics
from pipeline.clickhouse.repeated_insert import RepeatedInsert
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column, Mask
from pipeline.retry import Held, Retry

_MAX_ROWS = 100_000


class Emission:
    """Stores closed hours.

    Args:
        sink: server and database of session_stats.
        retry: runs the inserts.
        pool: threads to insert in.
        max_rows: rows of one block, at most.
    """

    def __init__(self, sink: Sink, retry: Retry, pool: Executor, *, max_rows: int = _MAX_ROWS) -> None:
        self._sink = sink
        self._retry = retry
        self._pool = pool
        self._max_rows = max_rows

    async def store(self, held: Held, token: str, rows: Mapping[str, Column], *, again: bool) -> None:
        """Store the rows of one hour of a partition.

        Args:
            held: the partition.
            token: names topic, partition and hour.
            rows: all rows of the hour, sorted.
            again: True if another worker may have stored them.

        Raises:
            LostPartitionError: another worker owns the partition.
            ChimeraError, clickhouse_driver.errors.Error: the worker has to stop.
        """
        count = len(np.asarray(rows["hour"]))
        for number, start in enumerate(range(0, count, self._max_rows)):
            block = {name: np.asarray(column)[start : start + self._max_rows] for name, column in rows.items()}
            insert = RepeatedInsert(
                self._sink,
                TABLE,
                block,
                f"{token}/{number}",
                find=self._find_missing,
                check=partial(self._retry.check_lease, held),
                look_first=again,
                look_after=again,
            )
            metrics.ROWS_INSERTED.labels(TABLE).inc(await self._retry.run(held, insert.attempt, self._pool))

    def _find_missing(self, columns: Mapping[str, Column], *, tried: bool) -> Mask:
        """Mask of the rows that session_stats lacks; none of an hour that its TTL has expired.

        A TTL may expire only some rows of an hour. Those are inserted once, and may be gone in the next turn.
        """
        hour, sessions = int(np.asarray(columns["hour"])[0]), np.asarray(columns["session_id"])
        if self._sink.hour_expired(TABLE, hour, certainly=not tried):
            return np.zeros(len(sessions), np.bool_)
        stored = self._sink.stored_sessions(TABLE, hour)
        return np.fromiter((session not in stored for session in sessions.tolist()), np.bool_, len(sessions))
