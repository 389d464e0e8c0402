"""How far a partition's replay has got, and what of it can't be replayed because retention has deleted it."""

import time
from datetime import UTC, datetime
from typing import Any

import structlog
from aiokafka.structs import TopicPartition

from pipeline import metrics
from pipeline.batches import Takeover
from pipeline.columns import Ints
from pipeline.rollup.snapshot import Snapshot

_SAY_SECONDS = 5.0
_DAY_MS = 86_400_000
_MOST_DAYS = 14  # that are named


class Recovery:
    """The replay of one partition, from its snapshot to where the group has got to.

    Args:
        tp: the partition.
        snapshot: what it begins with; None when there is none, and the log is all there is.
        takeover: what was recorded of the partition, and where its log begins.
    """

    def __init__(self, tp: TopicPartition, snapshot: Snapshot | None, takeover: Takeover) -> None:
        self._tp = tp
        self._from = snapshot.offset if snapshot else 0
        self._watermark = snapshot.watermark if snapshot else None
        self._deleted = max(0, takeover.beginning - self._from)
        self._start = self._position = max(self._from, takeover.beginning)
        self._end = takeover.committed
        self._began_at = self._said_at = time.monotonic()
        self._log = structlog.get_logger("chimera.rollup").bind(topic=tp.topic, partition=tp.partition)

    @property
    def remaining(self) -> int:
        """How many offsets are to be replayed."""
        return max(0, self._end - self._position)

    def advance(self, offset: int) -> None:
        """All before this offset is in the windows."""
        if self.remaining and offset >= self._end:
            seconds = round(time.monotonic() - self._began_at, 1)
            self._log.info("session_stats recovered", records=self._end - self._start, seconds=seconds)
        self._position = offset

    def say(self, log: Any) -> None:
        """Log the progress of a replay that takes long."""
        if self.remaining and time.monotonic() - self._said_at >= _SAY_SECONDS:
            self._said_at = time.monotonic()
            done = self._position - self._start
            percent = round(100 * done / (self._end - self._start))
            log.info(
                "recovering session_stats",
                topic=self._tp.topic,
                partition=self._tp.partition,
                percent=percent,
                records=done,
                of=self._end - self._start,
            )

    def note(self, ts: Ints) -> None:
        """Tell, with the first events that are there, which days lack those that aren't."""
        if not self._deleted or not len(ts):
            return
        first_ms = int(ts.min())
        days = _days(first_ms if self._watermark is None else min(self._watermark, first_ms), int(ts.max()))
        metrics.ROLLUP_RECORDS_MISSING.inc(self._deleted)
        self._log.error(
            "records that session_stats needs were deleted by retention before they were in a snapshot; rows of these "
            "days may lack events: look with `chimera rollup verify --day`, mend with `chimera rollup repair --day`",
            records=self._deleted,
            first_offset=self._from,
            last_offset=self._from + self._deleted - 1,
            days=days,
        )
        self._deleted = 0


def _days(first_ms: int, last_ms: int) -> str:
    """The days from one time to another, as the commands take them."""
    first, last = max(0, first_ms) // _DAY_MS, last_ms // _DAY_MS
    names = [
        datetime.fromtimestamp(day * _DAY_MS / 1000, UTC).date().isoformat()
        for day in range(first, min(last, first + _MOST_DAYS - 1) + 1)
    ]
    return ", ".join(names) + (" and later" if last - first >= _MOST_DAYS else "")
