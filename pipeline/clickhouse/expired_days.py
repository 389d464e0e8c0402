"""Days that a table's TTL has expired: rows of these are not inserted, since the server would drop them at once."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.clickhouse.ttl import expired_times
from pipeline.columns import Mask

_DAY_MS = 86_400_000
_KNOWN_SECONDS = 60.0


class ExpiredDays:
    """Answers of the server about days, by table, remembered for a minute; several threads may use it at once.

    A day is expired when its last millisecond is. A TTL with a condition, a GROUP BY or other columns expires no day.

    Args:
        monotonic: clock in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: dict[str, dict[int, bool]] = {}
        self._forget_at: dict[str, float] = {}

    def mask(self, client: Any, table: str, times: NDArray[np.int64]) -> Mask:
        """Return the mask of the times whose whole day the table's TTL has expired.

        Args:
            client: connected, with the table's database as default.
            table: one of the event tables.
            times: values of `ts`, in ms since 1970.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
        """
        days = times // _DAY_MS
        first, last = int(days.min()), int(days.max())
        distinct = [first] if first == last else np.unique(days).tolist()
        with self._lock:
            if self._monotonic() >= self._forget_at.get(table, 0.0):
                self._known[table], self._forget_at[table] = {}, self._monotonic() + _KNOWN_SECONDS
            known = self._known[table]
        if new := [day for day in distinct if day not in known]:
            ends = (np.array(new, np.int64) + 1) * _DAY_MS - 1
            known.update(zip(new, expired_times(client, table, "ts", ends, certainly=True).tolist(), strict=True))
        expired = [day for day in distinct if known[day]]
        return np.isin(days, expired) if expired else np.zeros(len(days), np.bool_)
