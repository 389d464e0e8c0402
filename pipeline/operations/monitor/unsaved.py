"""Time for which consumed records have waited for a snapshot: the age of a snapshot says nothing of a quiet topic."""

from collections.abc import Mapping
from typing import NamedTuple


class _Wait(NamedTuple):
    since: float
    end: int
    """Offset behind the records that wait."""


class UnsavedRecords:
    """Partitions whose newest snapshot lacks consumed records."""

    def __init__(self) -> None:
        self._waits: dict[int, _Wait] = {}

    def compare(self, at: float, committed: Mapping[int, int], saved: Mapping[int, int]) -> None:
        """Compare committed offsets with those of the newest snapshots, both by partition; no snapshot has nothing."""
        self._waits = {
            number: wait
            for number, wait in self._waits.items()
            if number in committed and saved.get(number, 0) < wait.end
        }
        for number, offset in committed.items():
            if offset > saved.get(number, 0):
                self._waits.setdefault(number, _Wait(at, offset))

    def seconds(self, now: float) -> float:
        """Return the longest wait; 0 if no record waits."""
        return max((now - wait.since for wait in self._waits.values()), default=0.0)
