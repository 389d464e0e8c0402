"""The brake: tells when so many records are rejected that something upstream must be wrong. It stops nothing.

One rejected record is its producer's business, half of them are an operator's: a schema that changed, or that nobody
registered. Records and rejections are counted in a window that slides with the clock.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

_STEPS = 60  # of which a window is made: memory is bounded, whatever flows


@dataclass(slots=True)
class _Step:
    """What came in one sixtieth of the window."""

    number: int
    records: int = 0
    rejected: int = 0


class Brake:
    """Counts the records of one family and its rejections.

    Args:
        ratio: the brake is on while more than this part of the window's records was rejected; never with 1.
        window_seconds: how far it looks back, to a sixtieth.
        minimum: with fewer records in the window it is off.
        clock: seconds that never go back.
    """

    def __init__(
        self, ratio: float, window_seconds: float, minimum: int, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._ratio = ratio
        self._window_seconds = window_seconds
        self._minimum = minimum
        self._clock = clock
        self._steps: deque[_Step] = deque()

    def count(self, *, records: int, rejected: int) -> None:
        """Take note of records that were stored or rejected, and how many of them were rejected."""
        number = self._now()
        if not self._steps or self._steps[-1].number != number:
            self._steps.append(_Step(number))
            self._expire(number)
        self._steps[-1].records += records
        self._steps[-1].rejected += rejected

    @property
    def why(self) -> str | None:
        """What is wrong while the brake is on, in words; None while it is off."""
        self._expire(self._now())
        records = sum(step.records for step in self._steps)
        rejected = sum(step.rejected for step in self._steps)
        if records < self._minimum or rejected <= self._ratio * records:
            return None
        return (
            f"{rejected:,} of {records:,} records rejected in {self._window_seconds:g} s, "
            f"more than {self._ratio:.0%} of them"
        )

    def _now(self) -> int:
        return int(self._clock() * _STEPS / self._window_seconds)

    def _expire(self, now: int) -> None:
        while self._steps and self._steps[0].number <= now - _STEPS:
            self._steps.popleft()
