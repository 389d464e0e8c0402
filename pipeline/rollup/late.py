"""Counts of late events by window: they tell differences that late events explain from errors."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Ints
from pipeline.rollup.fold import HOUR_MS, halves, whole
from pipeline.rollup.waiting import Ids

MOST_WINDOWS = 100_000
"""Number of windows that are remembered: those with the greatest hours. Counts are only added, so the remembered
windows and their counts don't depend on when the others were forgotten."""

_MOST_PARTS = 100
_COUNT = np.dtype([("hour", np.int64), ("high", np.uint64), ("low", np.uint64), ("count", np.int64)])


class LateCounts:
    """Number of late events by window, for one partition.

    Args:
        most_windows: number of windows to remember.
    """

    def __init__(self, most_windows: int = MOST_WINDOWS) -> None:
        self._most_windows = most_windows
        self._parts = [np.empty(0, _COUNT)]
        self._rows = 0

    @classmethod
    def restore(cls, columns: Mapping[str, NDArray[Any]], most_windows: int = MOST_WINDOWS) -> "LateCounts":
        """Restore the counts from the columns that `columns` returned."""
        counts = cls(most_windows)
        counts._add(columns["hour"], columns["session_id"], columns["count"])
        return counts

    def add(self, ts: Ints, session_id: Ids) -> None:
        """Count one or more late events."""
        self._add(ts // HOUR_MS, session_id, 1)
        if self._rows > 2 * self._most_windows or len(self._parts) > _MOST_PARTS:
            self._sum()

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return columns `hour` (number), `session_id` and `count`, sorted by hour and session; they never change."""
        counts = self._sum()
        ids = whole(counts["high"], counts["low"])
        return {"hour": counts["hour"].copy(), "session_id": ids, "count": counts["count"].copy()}

    def _add(self, hour: Ints, session_id: Ids, count: Ints | int) -> None:
        part = np.empty(len(hour), _COUNT)
        part["hour"], part["count"] = hour, count
        part["high"], part["low"] = halves(session_id)
        self._parts.append(part)
        self._rows += len(part)

    def _sum(self) -> NDArray[np.void]:
        """Sum the parts into one, with one row per window."""
        rows = np.concatenate(self._parts)
        rows = rows[np.lexsort((rows["low"], rows["high"], rows["hour"]))]
        keys = rows[["hour", "high", "low"]]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(rows)])
        counts = rows[starts]
        if len(counts):
            counts["count"] = np.add.reduceat(rows["count"], starts)
        counts = counts[-self._most_windows :]
        self._parts, self._rows = [counts], len(counts)
        return counts
