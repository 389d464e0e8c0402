"""What the rollup knows of one partition: the watermark, the events that wait for it, and the windows.

Pure: columns in, closed windows and late events out; no clock. What comes out is a function of the events in their
order, and of the raises of the watermark between them, however they are cut into batches and whenever they are folded.

Events wait until the watermark has passed them, and are then folded into their windows. An event that is behind the
watermark when it comes is late, and in no window: so all that is folded is before all that may still come, and the
order of events within a window is known for good.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Column, Ints
from pipeline.rollup.fold import ERROR, HOUR_MS, OPEN, SUBMIT, Windows, fold, merge
from pipeline.rollup.late import LateCounts
from pipeline.rollup.rows import columns_of, rows_of, windows_of
from pipeline.rollup.waiting import NEVER, Ids, Reorder, Waiting

__all__ = ["ERROR", "HOUR_MS", "OPEN", "SUBMIT", "Events", "Late", "PartitionWindows"]

LEAST_FOLDED = 50_000
"""New events that a fold awaits, unless an hour closes: one of few events costs nearly what one of many does."""


class Events(NamedTuple):
    """The valid ui_events of one micro-batch, as columns of one length, in log order; not to be changed later."""

    session_id: Ids
    ts: Ints
    """Event time, ms since the epoch, not before it."""
    event_type: NDArray[np.uint8]
    """OPEN, SUBMIT or ERROR."""
    latency_ms: Ints
    """From 0 to 2**32 - 1."""
    appended_at: Ints
    """The broker's timestamps, ms since the epoch."""


class Late(NamedTuple):
    """The late events of one micro-batch, in log order."""

    session_id: Ids
    ts: Ints
    lateness_ms: Ints
    """How far behind the watermark each was when it came: 1 or more."""


class PartitionWindows:
    """The windows of one partition.

    Arrays are replaced, never changed, and so is the collection of windows: what `columns` gave, and the properties,
    may be read in another thread while events are added.

    Args:
        grace_ms: how far the watermark stays behind the newest event.
    """

    def __init__(self, grace_ms: int) -> None:
        self._grace_ms = grace_ms
        self._watermark = 0
        self._event_watermark = 0
        self._newest_appended_at = 0
        self._skewed = 0
        self._windows: dict[int, Windows] = {}
        self._reorder = Reorder(Waiting.none())
        self._late = LateCounts()

    @classmethod
    def restore(cls, grace_ms: int, watermark: int, columns: Mapping[str, NDArray[Any]]) -> Self:
        """The state of which `columns` were taken, at that watermark."""

        def part(name: str) -> dict[str, NDArray[Any]]:
            return {key.removeprefix(name): column for key, column in columns.items() if key.startswith(name)}

        state = cls(grace_ms)
        state._watermark = watermark
        state._event_watermark = int(columns["newest.watermark"][0])
        state._newest_appended_at = int(columns["newest.appended_at"][0])
        state._windows = windows_of(part("window."))
        state._reorder = Reorder(Waiting(**part("waiting.")))
        state._late = LateCounts.restore(part("late."))
        return state

    @property
    def watermark(self) -> int:
        """Ms since the epoch: events before it are late, hours that end before it, or at it, are closed."""
        return self._watermark

    @property
    def event_watermark(self) -> int:
        """Where events alone have moved the watermark to, without any raise."""
        return self._event_watermark

    @property
    def newest_appended_at(self) -> int:
        """The greatest of the broker's timestamps, ms since the epoch; 0 before the first event."""
        return self._newest_appended_at

    @property
    def oldest_hour(self) -> int | None:
        """Number of the first hour that has events and isn't closed."""
        hours = [hour for hour in self._windows if not self._is_closed(hour)]
        waiting = self._reorder.oldest_ms
        return min(hours if waiting == NEVER else [*hours, waiting // HOUR_MS], default=None)

    @property
    def open_windows(self) -> int:
        """Windows that have folded events and aren't removed."""
        return sum(map(len, self._windows.values()))

    @property
    def waiting_events(self) -> int:
        """Events that aren't folded yet."""
        return len(self._reorder)

    @property
    def skewed(self) -> int:
        """How many added events were more than an hour ahead of the broker's time; not part of what is restored."""
        return self._skewed

    def add(self, events: Events) -> Late:
        """Count events; gives those that are late, which are in no window.

        An event moves the watermark to `grace_ms` behind it, or behind the hour after it was appended if that is
        earlier: one whose clock is far ahead is counted as any other, but closes nothing that isn't over.
        """
        latest = events.appended_at + HOUR_MS
        self._skewed += int(np.count_nonzero(events.ts > latest))
        self._newest_appended_at = int(events.appended_at.max(initial=self._newest_appended_at))
        reached = np.minimum(events.ts, latest) - self._grace_ms
        self._event_watermark = int(reached.max(initial=self._event_watermark))
        watermarks = np.maximum.accumulate(np.append(self._watermark, reached))
        behind = events.ts < watermarks[:-1]
        late = Late(events.session_id[behind], events.ts[behind], (watermarks[:-1] - events.ts)[behind])
        in_time = Waiting(events.session_id, events.ts, events.event_type, events.latency_ms.astype(np.uint32))
        if len(late.ts):
            self._late.add(late.ts, late.session_id)
            in_time = in_time.pick(~behind)
        self._reorder.add(in_time)
        self.raise_watermark(int(watermarks[-1]))
        return late

    def raise_watermark(self, to_ms: int) -> None:
        """Move the watermark to `to_ms`, unless it is there or beyond: from now on, events before that are late."""
        closes = to_ms // HOUR_MS > self._watermark // HOUR_MS
        self._watermark = max(self._watermark, to_ms)
        if closes or (self._reorder.enough and self._reorder.added >= max(LEAST_FOLDED, self.open_windows)):
            self._fold()

    def closed_hours(self) -> list[int]:
        """Numbers of the hours that are over and have windows, ascending, until they are removed."""
        return sorted(filter(self._is_closed, self._windows))

    def rows(self, hour: int) -> dict[str, Column]:
        """The rows of session_stats of a closed hour, in the table's columns, sorted by session; always the same ones.

        Raises:
            KeyError: no windows of that hour.
        """
        return rows_of(hour, self._windows[hour])

    def remove(self, hour: int) -> None:
        """Forget the windows of a closed hour, whose rows are stored.

        Raises:
            KeyError: no windows of that hour.
        """
        windows = self._windows.copy()
        del windows[hour]
        self._windows = windows

    def columns(self) -> dict[str, NDArray[Any]]:
        """All there is but the watermark: `window.*` sorted, `waiting.*` in log order, `late.*`, `newest.*`.

        They are the same for the same events, raises and removals, and are never changed.
        """
        self._fold()
        parts = {
            "window": columns_of(self._windows),
            "waiting": self._reorder.all()._asdict(),
            "late": self._late.columns(),
            "newest": {
                "watermark": np.array([self._event_watermark]),
                "appended_at": np.array([self._newest_appended_at]),
            },
        }
        return {f"{part}.{name}": column for part, columns in parts.items() for name, column in columns.items()}

    def _is_closed(self, hour: int) -> bool:
        return hour < self._watermark // HOUR_MS

    def _fold(self) -> None:
        """Bring the events that the watermark has passed into their windows."""
        windows = self._windows.copy()
        for hour, later in fold(self._reorder.take(self._watermark)).items():
            windows[hour] = merge(windows[hour], later) if hour in windows else later
        self._windows = windows
