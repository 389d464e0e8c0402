"""The state of one partition: watermark, reorder buffer and windows.

Pure: events go in as columns, closed windows and late events come out, and there is no clock. The result depends only
on the events in log order and on the raises of the watermark between them. It doesn't depend on how events are cut into
batches, or when they are folded.

Events wait in the reorder buffer until the watermark has passed them; then they are folded into their windows. An event
behind the watermark on arrival is late and goes into no window. So every folded event comes before every event that may
still arrive, and the order of events within a window is final.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Column, Ints
from pipeline.rollup.fold import ERROR, HOUR_MS, OPEN, SUBMIT, Windows, fold, merge
from pipeline.rollup.late import MOST_WINDOWS, LateCounts
from pipeline.rollup.rows import columns_of, rows_of, windows_of
from pipeline.rollup.waiting import NEVER, Ids, Reorder, Waiting

__all__ = ["ERROR", "HOUR_MS", "OPEN", "SUBMIT", "Events", "Late", "PartitionWindows"]

SKEW_MS = 60_000
"""An event further ahead of the broker's time than this, or than the grace if that is shorter, has a wrong clock."""

LEAST_FOLDED = 50_000
"""New events that a fold waits for, unless an hour closes: folding few events costs nearly as much as many."""


class Events(NamedTuple):
    """The valid ui_events of one micro-batch: columns of one length, in log order. Don't change them later."""

    session_id: Ids
    ts: Ints
    """Event time, ms since the epoch; never negative."""
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
    """Distance behind the watermark on arrival: 1 or more."""


class PartitionWindows:
    """The windows of one partition.

    Arrays and the collection of windows are replaced, never changed. So another thread may read the properties and the
    result of `columns` while events are added.

    Args:
        grace_ms: distance of the watermark behind the newest event.
        least_folded: number of new events that a fold waits for, unless an hour closes.
        most_late_windows: number of windows whose late events are remembered.
    """

    def __init__(
        self, grace_ms: int, *, least_folded: int = LEAST_FOLDED, most_late_windows: int = MOST_WINDOWS
    ) -> None:
        self._grace_ms = grace_ms
        self._least_folded = least_folded
        self._most_late_windows = most_late_windows
        self._watermark = 0
        self._event_watermark = 0
        self._newest_appended_at = 0
        self._skewed = self._most_ahead_ms = 0
        self._windows: dict[int, Windows] = {}
        self._reorder = Reorder(Waiting.none())
        self._late = LateCounts(most_late_windows)

    @classmethod
    def restore(cls, grace_ms: int, watermark: int, columns: Mapping[str, NDArray[Any]], **limits: int) -> Self:
        """Restore the state from the result of `columns` and its watermark; `limits` go to the constructor."""

        def part(name: str) -> dict[str, NDArray[Any]]:
            return {key.removeprefix(name): column for key, column in columns.items() if key.startswith(name)}

        state = cls(grace_ms, **limits)
        state._watermark = watermark
        state._event_watermark = int(columns["newest.watermark"][0])
        state._newest_appended_at = int(columns["newest.appended_at"][0])
        state._windows = windows_of(part("window."))
        state._reorder = Reorder(Waiting(**part("waiting.")))
        state._late = LateCounts.restore(part("late."), state._most_late_windows)
        return state

    @property
    def watermark(self) -> int:
        """Watermark in ms since the epoch: earlier events are late, and hours that end at or before it are closed."""
        return self._watermark

    @property
    def event_watermark(self) -> int:
        """Watermark that the events alone have reached, without raises."""
        return self._event_watermark

    @property
    def newest_appended_at(self) -> int:
        """Greatest broker timestamp, ms since the epoch; 0 before the first event."""
        return self._newest_appended_at

    @property
    def oldest_hour(self) -> int | None:
        """Number of the first open hour with events; None without one."""
        hours = [hour for hour in self._windows if not self._is_closed(hour)]
        waiting = self._reorder.oldest_ms
        return min(hours if waiting == NEVER else [*hours, waiting // HOUR_MS], default=None)

    @property
    def open_windows(self) -> int:
        """Number of windows that have folded events and aren't removed."""
        return sum(map(len, self._windows.values()))

    @property
    def waiting_events(self) -> int:
        """Number of events that aren't folded yet."""
        return len(self._reorder)

    @property
    def skewed(self) -> int:
        """Number of added events whose clock is ahead, see `SKEW_MS`; not restored from snapshots."""
        return self._skewed

    @property
    def most_ahead_ms(self) -> int:
        """Time by which an event of the last `add` was ahead of the broker's time, at most."""
        return self._most_ahead_ms

    def add(self, events: Events, *, ahead_ms: int = 0) -> Late:
        """Add events; return the late ones, which go into no window.

        An event moves the watermark to its time less `grace_ms`, but no further than its broker timestamp less
        `grace_ms`. So an event whose clock is ahead is counted in its hour, but makes no event late that reaches the
        broker within the grace.

        Args:
            events: events in log order.
            ahead_ms: time by which an event could run ahead of its broker timestamp under an earlier rule.
        """
        latest = events.appended_at + ahead_ms
        ahead = events.ts - events.appended_at
        self._skewed += int(np.count_nonzero(ahead > min(SKEW_MS, self._grace_ms)))
        self._most_ahead_ms = int(ahead.max(initial=0))
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
        """Move the watermark forward to `to_ms`: from now on, earlier events are late. It never moves back."""
        closes = to_ms // HOUR_MS > self._watermark // HOUR_MS
        self._watermark = max(self._watermark, to_ms)
        if closes or (self._reorder.enough and self._reorder.added >= max(self._least_folded, self.open_windows)):
            self._fold()

    def closed_hours(self) -> list[int]:
        """Return the numbers of closed hours whose windows aren't removed, ascending."""
        return sorted(filter(self._is_closed, self._windows))

    def rows(self, hour: int) -> dict[str, Column]:
        """Return the session_stats rows of a closed hour as columns, sorted by session; always the same rows.

        Raises:
            KeyError: the hour has no windows.
        """
        return rows_of(hour, self._windows[hour])

    def remove(self, hour: int) -> None:
        """Remove the windows of a closed hour whose rows are stored.

        Raises:
            KeyError: the hour has no windows.
        """
        windows = self._windows.copy()
        del windows[hour]
        self._windows = windows

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the state without the watermark: `window.*` sorted, `waiting.*` in log order, `late.*`, `newest.*`.

        The same events, raises and removals give the same columns. The columns never change.
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
        """Fold the events that the watermark has passed into their windows."""
        windows = self._windows.copy()
        for hour, later in fold(self._reorder.take(self._watermark)).items():
            windows[hour] = merge(windows[hour], later) if hour in windows else later
        self._windows = windows
