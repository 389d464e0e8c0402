"""Run a log through the columnar windows of a partition; the results have the types of the reference."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.rollup.partition import ERROR, HOUR_MS, OPEN, SUBMIT, Events, PartitionWindows
from support.rollup_reference import GRACE_MS, Closing, Event, LateEvent, Log, Row

_TYPES = {"open": OPEN, "submit": SUBMIT, "error": ERROR}


def columns(events: Sequence[Event]) -> Events:
    """Return events as the columns of a micro-batch."""
    ids, times, types, latencies, appended = list(zip(*events, strict=True)) or [()] * 5
    return Events(
        np.array(ids, "V16"),
        np.array(times, np.int64),
        np.array([_TYPES[name] for name in types], np.uint8),
        np.array(latencies, np.int64),
        np.array(appended, np.int64),
    )


def rows(windows: PartitionWindows, hour: int) -> list[Row]:
    """Return the rows of a closed hour."""
    return [Row(*row) for row in zip(*(np.asarray(c).tolist() for c in windows.rows(hour).values()), strict=True)]


def missed(state: dict[str, NDArray[Any]]) -> dict[tuple[int, bytes], int]:
    """Return the number of late events by hour number and session."""
    hours, ids, counts = (state[f"late.{name}"].tolist() for name in ("hour", "session_id", "count"))
    return dict(zip(zip(hours, ids, strict=True), counts, strict=True))


class Saved(NamedTuple):
    """A snapshot at an offset, with copies of its columns."""

    offset: int
    watermark: int
    columns: dict[str, NDArray[Any]]
    copies: dict[str, NDArray[Any]]


class Run:
    """A run that takes a log batch by batch, like the rollup; an item's offset is its place in the log.

    Args:
        log: the whole log.
        limits: limits of `PartitionWindows`.
    """

    def __init__(self, log: Log, **limits: int) -> None:
        self.log = log
        self._limits = limits
        self.windows = PartitionWindows(GRACE_MS, **limits)
        self.offset = 0
        self.late: list[LateEvent] = []
        self.stored: dict[int, list[Row]] = {}
        self.snapshots: list[Saved] = []

    @property
    def rows(self) -> list[Row]:
        """The stored rows, by hour and session."""
        return [row for hour in sorted(self.stored) for row in self.stored[hour]]

    def take(self, count: int | None = None) -> None:
        """Add the next `count` items of the log as one batch; None for all that are left."""
        items = self.log[self.offset :][:count]
        for _, group in groupby(items, type):
            same = list(group)
            self._add([item for item in same if isinstance(item, Event)])
            for item in same:
                if isinstance(item, Closing):
                    self.windows.raise_watermark(item.hour * HOUR_MS)
        self.offset += len(items)

    def _add(self, events: list[Event]) -> None:
        late = self.windows.add(columns(events))
        self.late += map(LateEvent, *(column.tolist() for column in late))

    def store(self, *, remove: bool = True) -> None:
        """Store the rows of closed hours; a repeated hour must have the same rows."""
        for hour in self.windows.closed_hours():
            new = rows(self.windows, hour)
            assert self.stored.setdefault(hour, new) == new
            if remove:
                self.windows.remove(hour)

    def snapshot(self) -> None:
        """Save a snapshot."""
        state = self.windows.columns()
        copies = {name: column.copy() for name, column in state.items()}
        self.snapshots.append(Saved(self.offset, self.windows.watermark, state, copies))

    def crash(self, back: int = 1) -> None:
        """Lose everything but the snapshots, and restore from the newest or an older one."""
        self.snapshots = self.snapshots[: len(self.snapshots) - back + 1]
        if not self.snapshots:
            self.offset, self.windows = 0, PartitionWindows(GRACE_MS, **self._limits)
            return
        self.offset, watermark, state, _ = self.snapshots[-1]
        self.windows = PartitionWindows.restore(GRACE_MS, watermark, state, **self._limits)
