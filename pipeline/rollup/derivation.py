"""One partition on its way along the log: its windows, the offset that they have got to, and what is closed on the way.

No thread, no clock and no server of its own: whoever calls it sees to it that one call is over before the next begins.
"""

from collections import deque
from collections.abc import Iterable

from pipeline import metrics
from pipeline.columns import Column, Rows
from pipeline.rollup.events import events_of, part_of
from pipeline.rollup.fold import HOUR_MS
from pipeline.rollup.partition import Events, PartitionWindows
from pipeline.rollup.snapshot import Snapshot
from pipeline.transport.batches import MicroBatch
from pipeline.transport.commit_metadata import Closing


class Derivation:
    """The windows of one partition, and where in its log they are.

    Args:
        windows: as they are before the record at `offset`.
        offset: of the first record that isn't in them.
        closings: that former owners have recorded, ascending.
    """

    def __init__(self, windows: PartitionWindows, offset: int, closings: Iterable[Closing] = ()) -> None:
        self.windows = windows
        self.offset = offset
        self.rows = 0
        """How many were added; for whoever counts from one snapshot to the next."""
        self.stored_hours = 0
        """How many hours were stored; likewise."""
        self._closings = deque(closings)
        self._known_before = windows.watermark // HOUR_MS
        self._close_reached()

    def add(self, batch: MicroBatch, rows: Rows) -> None:
        """Add the events of a micro-batch, but for those that are in; close on the way what was closed there."""
        if batch.last < self.offset:
            return
        events = events_of(batch, rows)
        if batch.replayed or batch.again:  # a former owner, who may have had another grace, may have stored these hours
            self._known_before = max(self._known_before, int(events.ts.max(initial=0)) // HOUR_MS + 1)
        while self._closings and self._closings[0].offset <= batch.last:
            end = self._closings[0].offset
            self._fold(part_of(events, batch, rows, self.offset, end), again=batch.replayed)
            self.offset = end
            self._close_reached()
        self._fold(part_of(events, batch, rows, self.offset, batch.last + 1), again=batch.replayed)
        self.offset = batch.last + 1
        self.rows += len(rows)
        self._close_reached()

    def close(self, hour: int) -> None:
        """Close the windows of earlier hours, by the clock: it is recorded that they are closed at this offset."""
        self.windows.raise_watermark(hour * HOUR_MS)

    def closed_hour(self) -> int | None:
        """The first hour that is closed and isn't stored."""
        return next(iter(self.windows.closed_hours()), None)

    def rows_of(self, hour: int) -> dict[str, Column]:
        """The rows of a closed hour."""
        return self.windows.rows(hour)

    def may_be_stored(self, hour: int) -> bool:
        """Whether a former owner may have stored the rows of this hour."""
        return hour < self._known_before

    def stored(self, hour: int) -> None:
        """The rows of this hour are stored: its windows can go."""
        self.windows.remove(hour)
        self.stored_hours += 1

    def snapshot(self, topic_id: str, partition: int) -> Snapshot:
        """All of it, for whoever goes on from here."""
        columns = self.windows.columns()
        return Snapshot(topic_id, partition, self.offset, self.windows.watermark, columns)

    def _close_reached(self) -> None:
        """Close what former owners have closed by the clock at the offsets that are reached."""
        while self._closings and self._closings[0].offset <= self.offset:
            hour = self._closings.popleft().hour
            self.close(hour)
            self._known_before = max(self._known_before, hour)

    def _fold(self, events: Events, *, again: bool) -> None:
        skewed = self.windows.skewed
        late = self.windows.add(events)
        if again:
            return  # counted when they came
        metrics.ROLLUP_SKEWED.inc(self.windows.skewed - skewed)
        for lateness_ms in late.lateness_ms.tolist():
            metrics.ROLLUP_LATE_SECONDS.observe(lateness_ms / 1000)
