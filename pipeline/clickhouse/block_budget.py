"""Number of blocks that inserts of a partition may write into a table, so that its deduplication window lasts.

All partitions of the table's topic share a window. If the fastest inserts of all of them don't fit into it, each
partition's owner keeps to a share of it. docs/scaling.md has the arithmetic.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from pipeline.columns import Column

LEAST_BLOCKS_A_SECOND = 5.0
"""Blocks that each partition must be able to write in a second, on average."""

_DAY_SECONDS = 86_400
_TIMES = {"ts": _DAY_SECONDS * 1000, "hour": _DAY_SECONDS}  # columns by which tables are partitioned; units in a day


@dataclass(slots=True)
class _Bucket:
    """Blocks that may be written now; a new owner has none, since the one before it may have just written its share."""

    blocks: float
    at: float


class BlockBudget:
    """Makes inserts wait that would write more than their partition's share; several threads may use it.

    Within the horizon, a partition writes no more than its share of the window, whoever owns it: half of the share may
    be written at once, and the other half becomes free evenly over the horizon.

    Args:
        horizon_seconds: longest time from an insert to its repetition.
        clock: seconds that never go back.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        horizon_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._horizon_seconds = horizon_seconds
        self._clock = clock
        self._sleep = sleep
        self._shares: Mapping[str, float] = {}
        self._buckets = WeakKeyDictionary[object, dict[str, _Bucket]]()
        self._lock = threading.Lock()

    def set(self, shares: Mapping[str, float]) -> None:
        """Set the blocks of a partition's share by table; infinite for a window that needs no shares.

        Until a table's share is set, its inserts keep to the least that a worker starts with.
        """
        self._shares = dict(shares)

    def pay(self, table: str, owner: object, columns: Mapping[str, Column]) -> None:
        """Wait until an insert may write its blocks, one for each day.

        Args:
            table: name of the table.
            owner: this ownership of the partition; another one of the same partition is another object.
            columns: columns of the insert, with its times.
        """
        share = self._shares.get(table, 2 * LEAST_BLOCKS_A_SECOND * self._horizon_seconds)
        if share == float("inf"):
            return
        most, rate = share / 2, share / 2 / self._horizon_seconds
        left = float(_days(columns))
        while left > 0:
            part = min(left, most)
            while wait := self._wait_or_take(table, owner, part, most, rate):
                self._sleep(wait)
            left -= part

    def _wait_or_take(self, table: str, owner: object, blocks: float, most: float, rate: float) -> float:
        """Take blocks; if there aren't enough, take none and return the seconds until there are."""
        with self._lock:
            now = self._clock()
            bucket = self._buckets.setdefault(owner, {}).setdefault(table, _Bucket(0.0, now))
            bucket.blocks = min(most, bucket.blocks + (now - bucket.at) * rate)
            bucket.at = now
            if (missing := blocks - bucket.blocks) > 1e-6:  # not a rounding error
                return missing / rate
            bucket.blocks -= blocks
            return 0.0


def _days(columns: Mapping[str, Column]) -> int:
    """Return the number of days of the rows: each becomes a block."""
    name = next(name for name in _TIMES if name in columns)
    days = np.asarray(columns[name]) // _TIMES[name]
    return 1 if days.min() == days.max() else len(np.unique(days))
