"""The reject rate of a family: the share of its records that are rejected, in a window that slides with the clock.

One rejected record concerns its producer. If half of the records are rejected, an operator should look for a schema
that changed or that isn't registered. A high reject rate stops nothing.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

_STEPS = 60  # number of steps of a window; it bounds the memory


@dataclass(slots=True)
class _Step:
    """Counts of one sixtieth of the window."""

    number: int
    records: int = 0
    rejected: int = 0


class RejectRate:
    """Counts the records of one family and their rejections.

    Args:
        limit: highest share of rejected records, 0 to 1; 1 is never exceeded.
        window_seconds: length of the window, exact to a sixtieth.
        minimum: number of records in the window below which the limit is never exceeded.
        clock: seconds that never go back.
    """

    def __init__(
        self, limit: float, window_seconds: float, minimum: int, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._limit = limit
        self._window_seconds = window_seconds
        self._minimum = minimum
        self._clock = clock
        self._steps: deque[_Step] = deque()

    def count(self, *, records: int, rejected: int) -> None:
        """Count records that were stored or rejected.

        Args:
            records: number of all records.
            rejected: number of rejected records among them.
        """
        number = self._now()
        if not self._steps or self._steps[-1].number != number:
            self._steps.append(_Step(number))
            self._expire(number)
        self._steps[-1].records += records
        self._steps[-1].rejected += rejected

    @property
    def excess(self) -> str | None:
        """Rate and limit in words if the rate is above the limit, else None."""
        self._expire(self._now())
        records = sum(step.records for step in self._steps)
        rejected = sum(step.rejected for step in self._steps)
        if records < self._minimum or rejected <= self._limit * records:
            return None
        return (
            f"{rejected:,} of {records:,} records rejected in {self._window_seconds:g} s, "
            f"more than {self._limit:.0%} of them"
        )

    def _now(self) -> int:
        return int(self._clock() * _STEPS / self._window_seconds)

    def _expire(self, now: int) -> None:
        while self._steps and self._steps[0].number <= now - _STEPS:
            self._steps.popleft()
