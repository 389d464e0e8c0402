"""Consumption of one partition: a sliding window of looks, and what it says about lag.

A verdict follows Burrow's rules and needs no thresholds: a partition whose lag was zero at some look of the window is
ok; one whose commit doesn't move is stalled, or stopped if no worker owns it; one that moves while its lag never
shrinks is a warning. https://github.com/linkedin/Burrow/wiki/Consumer-Lag-Evaluation-Rules
"""

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from pipeline.operations.monitor.state import Consumption

WINDOW_LOOKS = 6
"""Looks that a verdict needs; with 5 s between them it takes 30 s."""
_MOST_ENDS = 128
_MOST_GAP_SECONDS = 20.0  # between two looks; across a longer gap a time isn't interpolated


class Seen(NamedTuple):
    """One partition at one look."""

    at: float
    """Seconds since 1970."""
    begin: int
    end: int
    committed: int | None
    owner: str | None

    @property
    def position(self) -> int:
        """Offset of the first record that isn't consumed; without a commit, workers begin where the log begins."""
        return self.begin if self.committed is None else max(self.committed, self.begin)

    @property
    def lag(self) -> int:
        """Number of records that aren't consumed; never negative, also if the topic was created anew."""
        return max(0, self.end - self.position)

    @property
    def lost(self) -> int:
        """Number of records that retention deleted before they were consumed."""
        return 0 if self.committed is None else max(0, self.begin - self.committed)


@dataclass(slots=True)
class _Known:
    """Timestamp of the record at an offset."""

    offset: int
    at: float


class PartitionWindow:
    """The last looks at one partition."""

    def __init__(self) -> None:
        self._looks: deque[Seen] = deque(maxlen=WINDOW_LOOKS)
        self._ends: deque[tuple[float, int]] = deque(maxlen=_MOST_ENDS)
        self._known: _Known | None = None

    @property
    def newest(self) -> Seen | None:
        """The last look."""
        return self._looks[-1] if self._looks else None

    def add(self, seen: Seen) -> None:
        """Add a look."""
        if self._looks and seen.end < self._looks[-1].end:  # the topic was created anew
            self._ends.clear()
            self._looks.clear()
            self._known = None
        self._looks.append(seen)
        self._ends.append((seen.at, seen.end))

    def learn(self, offset: int, at: float) -> None:
        """Note the timestamp of the record at an offset, in seconds since 1970."""
        self._known = _Known(offset, at)

    @property
    def unknown(self) -> int | None:
        """Offset of the first record that isn't consumed, if only the record itself tells its age."""
        seen = self.newest
        return seen.position if seen and seen.lag and self._appended_at(seen.position) is None else None

    def age(self, now: float) -> float | None:
        """Return the age in seconds of the first record that isn't consumed; 0 without lag; None if it is unknown."""
        seen = self.newest
        if seen is None:
            return None
        if not seen.lag:
            return 0.0
        at = self._appended_at(seen.position)
        return None if at is None else max(0.0, now - at)

    def consumption(self) -> Consumption:
        """Judge the window."""
        looks = self._looks
        if not looks:
            return Consumption.UNKNOWN
        if any(not seen.lag for seen in looks):
            return Consumption.OK
        moved = looks[0].position != looks[-1].position
        if looks[-1].owner is None and not moved:
            return Consumption.STOPPED
        if len(looks) < WINDOW_LOOKS:
            return Consumption.OK
        if not moved:
            return Consumption.STALLED
        growing = all(before.lag <= after.lag for before, after in pairwise(looks)) and looks[0].lag < looks[-1].lag
        return Consumption.WARNING if growing else Consumption.OK

    def rates(self) -> tuple[float, float] | None:
        """Return records per second that were produced and consumed within the window; None before two looks."""
        if len(self._looks) < 2:
            return None
        first, last = self._looks[0], self._looks[-1]
        seconds = max(last.at - first.at, 1e-3)
        return (last.end - first.end) / seconds, max(0, last.position - first.position) / seconds

    def _appended_at(self, offset: int) -> float | None:
        """Return the time at which a record came.

        The ends of the log at two looks tell it without a request. Else the record's own timestamp has to be learned.
        """
        if self._known and self._known.offset == offset:
            return self._known.at
        for (later, end), (earlier, start) in pairwise(reversed(self._ends)):
            if start <= offset < end:
                if later - earlier > _MOST_GAP_SECONDS:
                    return None
                return earlier + (later - earlier) * (offset + 1 - start) / (end - start)
        return None
