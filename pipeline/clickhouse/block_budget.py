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
from pipeline.retry import NotYetError

LEAST_BLOCKS_A_SECOND = 5.0
"""Blocks that each partition must be able to write in a second, on average."""

_AT_ONCE, _OVER_THE_HORIZON = 0.25, 0.5  # parts of a share
_DAY_SECONDS = 86_400
_TIMES = {"ts": _DAY_SECONDS * 1000, "hour": _DAY_SECONDS}  # columns by which tables are partitioned; units in a day


@dataclass(slots=True)
class _Bucket:
    """Blocks that may be written now; a new owner has none, since the one before it may have just written its share."""

    blocks: float
    at: float


class BlockBudget:
    """Holds up inserts that would write more than their partition's share; several threads may use it.

    Within the horizon, a partition writes no more than its share of the window, whoever owns it. A quarter of the share
    may be written at once, and half of it becomes free evenly over the horizon. The last quarter is for owners that are
    frozen: what they have paid for is written later, and for a while their share grows beside their successor's.

    Args:
        horizon_seconds: longest time from an insert to its repetition.
        clock: seconds that never go back.
    """

    def __init__(self, horizon_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._horizon_seconds = horizon_seconds
        self._clock = clock
        self._shares: Mapping[str, float] = {}
        self._buckets = WeakKeyDictionary[object, dict[str, _Bucket]]()
        self._lock = threading.Lock()

    def set(self, shares: Mapping[str, float]) -> None:
        """Set the blocks of a partition's share by table; infinite for a window that needs no shares.

        Until a table's share is set, its inserts keep to the least that a worker starts with.
        """
        self._shares = dict(shares)

    def bill(self, table: str, owner: object) -> "Bill":
        """Return the bill of one insert.

        Args:
            table: name of the table.
            owner: this ownership of the partition; another one of the same partition is another object.
        """
        return Bill(self, table, owner)

    def take(self, table: str, owner: object, blocks: float) -> tuple[float, float]:
        """Take blocks that may be written now, at most a quarter of the share.

        Returns:
            Number of blocks taken, and the seconds until there are enough; 0 blocks if the seconds aren't 0.
        """
        share = self._shares.get(table, 2 * LEAST_BLOCKS_A_SECOND * self._horizon_seconds)
        if share == float("inf"):
            return blocks, 0.0
        most, rate = share * _AT_ONCE, share * _OVER_THE_HORIZON / self._horizon_seconds
        blocks = min(blocks, most)
        with self._lock:
            now = self._clock()
            bucket = self._buckets.setdefault(owner, {}).setdefault(table, _Bucket(0.0, now))
            bucket.blocks = min(most, bucket.blocks + (now - bucket.at) * rate)
            bucket.at = now
            if (missing := blocks - bucket.blocks) > 1e-6:  # not a rounding error
                return 0.0, missing / rate
            bucket.blocks -= blocks
            return blocks, 0.0


class Bill:
    """Blocks that an insert has to pay for, one for each day of its rows; what is paid stays paid while it waits.

    Args:
        budget: what it is paid from.
        table: name of the table.
        owner: as of `BlockBudget.bill`.
    """

    def __init__(self, budget: BlockBudget, table: str, owner: object) -> None:
        self._budget = budget
        self._table = table
        self._owner = owner
        self._left = 0.0

    def pay(self, columns: Mapping[str, Column]) -> None:
        """Pay for an insert of these rows.

        Raises:
            NotYetError: it is too early; pay again later, with the same rows.
        """
        if not self._left:
            self._left = float(_days(columns))
        while self._left:
            paid, wait_seconds = self._budget.take(self._table, self._owner, self._left)
            self._left -= paid
            if wait_seconds:
                raise NotYetError(wait_seconds)


def _days(columns: Mapping[str, Column]) -> int:
    """Return the number of days of the rows: each becomes a block."""
    name = next(name for name in _TIMES if name in columns)
    days = np.asarray(columns[name]) // _TIMES[name]
    return 1 if days.min() == days.max() else len(np.unique(days))
