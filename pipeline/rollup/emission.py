"""Stores the rows of a closed hour in session_stats: once, whoever does it and however often.

The token says which hour of which partition of which topic it is, and the rows of that are the same for everybody. What
may have been stored before is looked for first, by hour and session: a token is forgotten in time, and a recovery may
go back further than that.
"""

from collections.abc import Mapping
from concurrent.futures import Executor
from functools import partial

import numpy as np

from pipeline import metrics
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column, select
from pipeline.errors import HaltError
from pipeline.retry import Attempts, Held

_MAX_ROWS = 100_000  # in one block
_MOST_TURNS = 5


class Emission:
    """Stores closed hours.

    Args:
        sink: where it is.
        attempts: how often, and for how long.
        pool: threads to insert in.
        max_rows: size limit of a block.
    """

    def __init__(self, sink: Sink, attempts: Attempts, pool: Executor, *, max_rows: int = _MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._sink = sink
        self._attempts = attempts
        self._pool = pool

    async def store(self, held: Held, token: str, rows: Mapping[str, Column], *, again: bool) -> None:
        """Store the rows of one hour of a partition.

        Args:
            held: the partition.
            token: of that hour.
            rows: all of it, sorted.
            again: whether a former owner may have stored them.

        Raises:
            LostPartitionError: the partition has gone to another worker.
            ChimeraError, clickhouse_driver.errors.Error: going on makes no sense.
        """
        count = len(np.asarray(rows["hour"]))
        for number, start in enumerate(range(0, count, self._max_rows)):
            block = {name: np.asarray(column)[start : start + self._max_rows] for name, column in rows.items()}
            step = partial(self._store_now, held, f"{token}/{number}", block, again=again)
            metrics.ROWS_INSERTED.labels(TABLE).inc(await self._attempts.make(held, step, self._pool))

    def _store_now(self, held: Held, token: str, rows: Mapping[str, Column], *, again: bool) -> int:
        """Store those of the rows that aren't there; gives how many these were."""
        check = partial(self._attempts.check_lease, held)
        look = again or self._attempts.repeats(held)
        stored = 0
        for turn in range(_MOST_TURNS):
            rows = self._missing(rows) if look else rows
            if not (count := len(np.asarray(rows["hour"]))):
                return stored
            check()
            self._sink.insert(TABLE, rows, f"{token}/{turn}" if turn else token, check)
            stored = max(stored, count)
            if not look:
                return stored
        raise HaltError(f"table {TABLE}: rows are gone as soon as they are inserted; is there a TTL that is over?")

    def _missing(self, rows: Mapping[str, Column]) -> dict[str, Column]:
        """Those of the rows that the table doesn't have."""
        hour = int(np.asarray(rows["hour"])[0])
        stored = self._sink.stored_sessions(TABLE, hour)
        sessions = np.asarray(rows["session_id"])
        missing = np.fromiter((session not in stored for session in sessions.tolist()), np.bool_, len(sessions))
        return {name: select(column, missing) for name, column in rows.items()}
