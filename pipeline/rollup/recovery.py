"""Restore partitions from their newest snapshots and the log after them.

The log tells the progress of a replay, and which records can't be replayed because retention has deleted them.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import structlog

from pipeline import metrics
from pipeline.columns import Column
from pipeline.rollup.clock import Clock
from pipeline.rollup.derivation import Derivation
from pipeline.rollup.partition import PartitionWindows
from pipeline.rollup.slots import Loaded
from pipeline.rollup.snapshot import BOUND_FROM, Snapshot
from pipeline.rollup.store import SnapshotStore
from pipeline.transport.broker import TopicPartition
from pipeline.transport.deriver import Takeover

_SAY_SECONDS = 5.0
_DAY_MS = 86_400_000
_MOST_DAYS = 14  # named in the log


class Recovery:
    """The replay of one partition, from its snapshot to the group's committed offset.

    Args:
        tp: the partition.
        snapshot: the restored snapshot; None if there is none and the whole log is replayed.
        takeover: the group's committed state of the partition, and the beginning of its log.
        clock: clock for durations.
    """

    def __init__(self, tp: TopicPartition, snapshot: Snapshot | None, takeover: Takeover, clock: Clock) -> None:
        self._clock = clock
        self._snapshot = snapshot
        self._start = self._position = max(snapshot.offset if snapshot else 0, takeover.beginning)
        self._end = takeover.committed
        first = snapshot.offset if snapshot else 0
        # Without a snapshot, a group with a committed offset has consumed the topic without this rollup. A new group
        # hasn't missed anything.
        behind = snapshot is not None or takeover.committed > takeover.beginning
        self._deleted = range(first, takeover.beginning if behind else first)
        self._began_at = self._said_at = clock.monotonic()
        self._log = structlog.get_logger("chimera.rollup").bind(topic=tp.topic, partition=tp.partition)

    @property
    def remaining(self) -> int:
        """Number of offsets still to be replayed."""
        return max(0, self._end - self._position)

    def advance(self, offset: int) -> None:
        """Note that all records below this offset are in the windows."""
        if self.remaining and offset >= self._end:
            seconds = round(self._clock.monotonic() - self._began_at, 1)
            self._log.info("session_stats recovered", records=self._end - self._start, seconds=seconds)
        self._position = offset

    def say(self) -> None:
        """Log the progress of a long replay."""
        if self.remaining and self._clock.monotonic() - self._said_at >= _SAY_SECONDS:
            self._said_at = self._clock.monotonic()
            done, all_of_it = self._position - self._start, self._end - self._start
            percent = round(100 * done / all_of_it)
            self._log.info("recovering session_stats", percent=percent, records=done, of=all_of_it)

    def note(self, ts: Column) -> None:
        """Report deleted records once, with the days that may lack events, as soon as the first events arrive."""
        times = np.asarray(ts)
        if not self._deleted or not len(times):
            return
        first_ms, last_ms = int(times.min()), int(times.max())
        days = _days(min(self._snapshot.watermark, first_ms) if self._snapshot else first_ms, last_ms)
        metrics.ROLLUP_RECORDS_MISSING.inc(len(self._deleted))
        self._log.error(
            "retention deleted records before they were in a snapshot; rows of session_stats of these days may lack "
            "events: check them with `chimera rollup verify --day`, repair them with `chimera rollup repair --day`",
            records=len(self._deleted),
            first_offset=self._deleted[0],
            last_offset=self._deleted[-1],
            days=days if self._snapshot else f"{days}, and all earlier days",
        )
        self._deleted = range(0)


def _days(first_ms: int, last_ms: int) -> str:
    """List the days from one time to another in the commands' format."""
    first, last = max(0, first_ms) // _DAY_MS, last_ms // _DAY_MS
    names = [
        datetime.fromtimestamp(day * _DAY_MS / 1000, UTC).date().isoformat()
        for day in range(first, min(last, first + _MOST_DAYS - 1) + 1)
    ]
    return ", ".join(names) + (" and later" if last - first >= _MOST_DAYS else "")


Recovered = tuple[Derivation, Recovery, tuple[int | None, int | None]]
"""Restored derivation of a partition, its replay, and the offsets of its last two snapshots, older one first."""


def recover(
    store: SnapshotStore, taken: Mapping[TopicPartition, Takeover], grace_ms: int, clock: Clock
) -> dict[TopicPartition, Recovered]:
    """Restore partitions from their newest snapshots; without a snapshot, from the beginning of the log.

    Args:
        store: the snapshots.
        taken: the group's committed state of each partition.
        grace_ms: grace of the windows.
        clock: clock for durations.

    Raises:
        UnavailableError: the broker doesn't answer.
        ChimeraError: the broker refuses.
    """
    numbers: dict[str, list[int]] = {}
    for tp, takeover in taken.items():
        numbers.setdefault(takeover.topic_id, []).append(tp.partition)
    loaded = {topic_id: store.load(topic_id, of_it, _Progress(clock)) for topic_id, of_it in numbers.items()}
    return {tp: _recovered(tp, takeover, loaded[takeover.topic_id], grace_ms, clock) for tp, takeover in taken.items()}


def _recovered(
    tp: TopicPartition, takeover: Takeover, loaded: Mapping[int, Loaded], grace_ms: int, clock: Clock
) -> Recovered:
    found = loaded.get(tp.partition)
    snapshot = found.snapshot if found else None
    windows = PartitionWindows(grace_ms)
    offset = takeover.beginning
    if snapshot:
        windows = PartitionWindows.restore(grace_ms, snapshot.watermark, snapshot.columns)
        offset = max(offset, snapshot.offset)
    older = found.older_offset if found else None
    derivation = Derivation(windows, offset, takeover.closings, _bound_from(snapshot, takeover))
    return derivation, Recovery(tp, snapshot, takeover, clock), (older, snapshot.offset if snapshot else None)


def _bound_from(snapshot: Snapshot | None, takeover: Takeover) -> int:
    """Return the offset from which the broker's time bounds the watermark.

    A snapshot of an older version was followed by records that this version derived otherwise, and whose hours it may
    have stored: these records are replayed by the older rule.
    """
    if snapshot is None:
        return 0
    found = snapshot.columns.get(BOUND_FROM)
    return takeover.delivered if found is None else int(found[0])


class _Progress:
    """Log the progress of a long load."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said_at = self._clock.monotonic()

    def __call__(self, read: int, total: int) -> None:
        if self._clock.monotonic() - self._said_at >= _SAY_SECONDS:
            self._said_at = self._clock.monotonic()
            structlog.get_logger("chimera.rollup").info("loading snapshots", records=read, of=total)
