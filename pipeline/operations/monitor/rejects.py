"""Share of the records that become dead letters, over the time in which workers count it for their readiness."""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple


class Totals(NamedTuple):
    """Records of a family that were consumed and that became dead letters, since any one moment."""

    consumed: int
    rejected: int


class RejectShares:
    """Totals of all families at the last looks.

    Args:
        window_seconds: time over which the share is counted.
        minimum: number of consumed records in that time without which there is no share.
    """

    def __init__(self, window_seconds: float, minimum: int) -> None:
        self._window_seconds, self._minimum = window_seconds, minimum
        self._looks = deque[tuple[float, Mapping[str, Totals]]]()

    def add(self, at: float, totals: Mapping[str, Totals]) -> None:
        """Add a look; those that are older than the window are forgotten, but for the last one."""
        self._looks.append((at, totals))
        while len(self._looks) > 2 and at - self._looks[1][0] >= self._window_seconds:
            self._looks.popleft()

    def share(self, family: str) -> float | None:
        """Return the share from 0 to 1; None with too few records."""
        if not self._looks:
            return None
        (_, first), (_, last) = self._looks[0], self._looks[-1]
        if family not in first or family not in last:
            return None
        consumed = last[family].consumed - first[family].consumed
        if consumed < self._minimum:
            return None
        return min(1.0, (last[family].rejected - first[family].rejected) / consumed)
