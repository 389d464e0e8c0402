"""The windows of one partition, moved along its log: add micro-batches, apply closings, give rows and snapshots.

It has no thread, no clock and no server. The caller must finish one call before it makes the next one.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np

from pipeline import metrics
from pipeline.columns import Column, Rows
from pipeline.rollup.events import events_of, part_of
from pipeline.rollup.fold import HOUR_MS
from pipeline.rollup.partition import Events, PartitionWindows
from pipeline.rollup.shares import Counts
from pipeline.rollup.snapshot import BOUND_FROM, Snapshot
from pipeline.transport.commit_metadata import Closing
from pipeline.transport.micro_batch import MicroBatch


class Derivation:
    """The windows of one partition, and their position in its log.

    Args:
        windows: state after all records below `offset`.
        offset: first offset whose record isn't in `windows`.
        closings: committed closings of earlier owners, in ascending order.
        bound_from: offset from which the broker's time bounds the watermark. Before it, records of an older version of
            the worker could run ahead by an hour, and rows were stored by that.
    """

    def __init__(
        self, windows: PartitionWindows, offset: int, closings: Iterable[Closing] = (), bound_from: int = 0
    ) -> None:
        self.windows = windows
        self.offset = offset
        self.rows = 0
        """Number of rows added; the caller subtracts those in a snapshot."""
        self.stored_hours = 0
        """Number of hours stored; the caller subtracts those before a snapshot."""
        self.late = 0
        """Number of late events; the caller subtracts those in a snapshot."""
        self._counts = Counts()
        self._bound_from = bound_from
        self._closings = deque(closings)
        self._known_before = windows.watermark // HOUR_MS
        self._close_reached()

    def add(self, batch: MicroBatch, rows: Rows) -> None:
        """Add the events of a micro-batch from `offset` on, and apply the closings within it at their offsets."""
        if batch.last < self.offset:
            return
        events = events_of(batch, rows)
        if batch.replayed or batch.again:
            # An earlier owner may have stored these hours; it may have had another grace.
            self.know_before(int(events.ts.max(initial=0)) // HOUR_MS + 1)
        ends = {batch.last + 1, self._bound_from, *(closing.offset for closing in self._closings)}
        for end in sorted(end for end in ends if self.offset < end <= batch.last + 1):
            self._fold(part_of(events, batch, rows, self.offset, end), again=batch.replayed)
            self.offset = end
            self._close_reached()
        self.rows += len(rows)

    def take_counts(self) -> Counts:
        """Return the counts of the events that were added since the last call; replayed ones aren't counted again."""
        counts, self._counts = self._counts, Counts()
        return counts

    def pass_to(self, offset: int) -> None:
        """Move to an offset below which no more records come, and apply the closings up to there."""
        self.offset = offset
        self._close_reached()

    def close(self, hour: int) -> None:
        """Close the windows of hours before `hour`, by the clock; their closing is committed at this offset."""
        self.windows.raise_watermark(hour * HOUR_MS)

    def closed_hours(self) -> list[int]:
        """Return the closed hours that aren't stored, ascending."""
        return self.windows.closed_hours()

    def rows_of(self, hour: int) -> dict[str, Column]:
        """Return the rows of a closed hour."""
        return self.windows.rows(hour)

    def may_be_stored(self, hour: int) -> bool:
        """Tell whether an earlier insert may have stored the rows of this hour, or may still do so."""
        return hour < self._known_before

    def know_before(self, hour: int) -> None:
        """Note that rows of hours before `hour` may be stored."""
        self._known_before = max(self._known_before, hour)

    def has_closed(self, hour: int) -> bool:
        """Tell whether an hour is closed, with events or without."""
        return hour < self.windows.watermark // HOUR_MS

    def stored(self, hour: int) -> None:
        """Remove the windows of an hour whose rows are stored."""
        self.windows.remove(hour)
        self.stored_hours += 1

    def snapshot(self, topic_id: str, partition: int) -> Snapshot:
        """Return a snapshot of the windows at the current offset."""
        columns = self.windows.columns() | {BOUND_FROM: np.array([self._bound_from])}
        return Snapshot(topic_id, partition, self.offset, self.windows.watermark, columns)

    def _close_reached(self) -> None:
        """Apply the committed closings up to the current offset."""
        while self._closings and self._closings[0].offset <= self.offset:
            hour = self._closings.popleft().hour
            self.know_before(hour)  # first: an hour that is closed and not known yet would pass for a new one
            self.close(hour)

    def _fold(self, events: Events, *, again: bool) -> None:
        skewed = self.windows.skewed
        late = self.windows.add(events, ahead_ms=HOUR_MS if self.offset < self._bound_from else 0)
        self.late += len(late.ts)
        if again:
            return  # these records were counted when they first arrived
        self._counts += Counts(len(events.ts), len(late.ts), self.windows.skewed - skewed)
        if len(late.ts):
            _count_lateness(np.asarray(late.lateness_ms) / 1000)


def _count_lateness(seconds: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """Count late events in one step: in a backfill, all may be late."""
    metric = metrics.ROLLUP_LATE_SECONDS
    bucket = np.searchsorted(metric.bounds, seconds, side="left")
    metric.add(np.bincount(bucket, minlength=len(metric.bounds) + 1).tolist(), float(seconds.sum()))
