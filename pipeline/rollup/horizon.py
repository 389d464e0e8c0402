"""Horizon of session_stats: the hours that every partition has stored, and their late events.

Both are read from the snapshots of the rollup.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from pipeline.catalog import RollupSpec, TopicSpec
from pipeline.config import KafkaSettings, Settings
from pipeline.errors import UnavailableError
from pipeline.kafka.offsets import TopicReader
from pipeline.kafka.topics import TopicAdmin, check_topics_exist
from pipeline.rollup.audit import HOUR_SECONDS, Difference, Hour
from pipeline.rollup.snapshot import Snapshot
from pipeline.rollup.store import SnapshotStore

_CATCH_UP_SECONDS = 15.0
_POLL_SECONDS = 0.5
_UNFINISHED = ("window.hour", "waiting.ts")  # columns of a snapshot


@dataclass(frozen=True, slots=True)
class Horizon:
    """Closed hours and late events of all partitions."""

    closed_before: float
    """Hour number: the rows of all earlier hours are in session_stats. Infinite if no hour can be open."""
    snapshots: tuple[Snapshot, ...] = ()
    """The newest snapshot of each partition that has one."""
    uncounted: int = 0
    """Records that ui_events has and the snapshots don't count: late events among them explain nothing yet."""

    def closed(self, hour: Hour) -> bool:
        """Tell whether every partition has stored the hour."""
        return hour.number < self.closed_before

    def late_events(self, hour: Hour) -> Counter[UUID]:
        """Return the number of late events by session; empty for old hours, whose counts are forgotten."""
        late = Counter[UUID]()
        for snapshot in self.snapshots:
            here = np.asarray(snapshot.columns["late.hour"]) == hour.number
            sessions, counts = (snapshot.columns[f"late.{name}"][here].tolist() for name in ("session_id", "count"))
            late.update({UUID(bytes=session): count for session, count in zip(sessions, counts, strict=True)})
        return late


def explains(late: Mapping[UUID, int], difference: Difference) -> bool:
    """Tell whether the row lacks exactly its late events."""
    return 0 < difference.uncounted_events == late.get(difference.session_id, 0)


def read_horizon(
    settings: Settings,
    rollup: RollupSpec,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    *,
    catch_up_seconds: float = _CATCH_UP_SECONDS,
) -> Horizon:
    """Read the newest snapshots, and wait until ui_events has the events that they count.

    Args:
        settings: the broker, the worker's group, and the grace.
        rollup: source topic and state topic.
        progress: called with the number of records read and the number of all records.
        catch_up_seconds: time that ingest has to catch up with the snapshots.

    Raises:
        HaltError: a topic is missing, or the broker refuses.
        UnavailableError: the broker doesn't answer, a partition has no snapshot yet, or ingest doesn't catch up.
    """
    kafka, topic = settings.kafka, rollup.source.topic.name
    topic_id = _topic_id(kafka, rollup.source.topic, rollup.state)
    with TopicReader(kafka, topic) as reader:
        logs = reader.ranges()
        store = SnapshotStore(kafka, rollup.state)
        loaded = store.load(topic_id, logs.keys(), progress)
        snapshots = {partition: found.snapshot for partition, found in loaded.items() if found.snapshot}
        _check_complete(topic, logs, snapshots)
        uncounted = _await_stored(reader, logs, snapshots, catch_up_seconds)
    # The newest snapshot is late enough: it follows the closing of the newest hour that is compared.
    by_clock = int(((store.newest_ms or 0) / 1000 - settings.rollup.grace_seconds) // HOUR_SECONDS)
    closed = (_closed_before(snapshot, logs[partition], by_clock) for partition, snapshot in snapshots.items())
    return Horizon(min(closed, default=math.inf), tuple(snapshots.values()), uncounted)


def _closed_before(snapshot: Snapshot, log: range, by_clock: int) -> int:
    """Return the hour before which a partition has stored all windows.

    A partition is at rest if all its records are read and all its windows are stored. Its watermark doesn't move, so
    the broker's clock closes hours instead, as of the newest snapshot: otherwise it would hold up the other partitions.
    The records of an open transaction aren't read, and the log ends behind them.
    """
    at_rest = snapshot.offset >= log.stop and not any(len(snapshot.columns[name]) for name in _UNFINISHED)
    return max(snapshot.emitted_before, by_clock) if at_rest else snapshot.emitted_before


def _topic_id(settings: KafkaSettings, *topics: TopicSpec) -> str:
    """Return the id of the first topic, after checking that all topics exist."""
    ids = TopicAdmin(settings).ids(topic.name for topic in topics)
    check_topics_exist(settings, topics, ids)
    return ids[topics[0].name]


def _check_complete(topic: str, logs: Mapping[int, range], snapshots: Mapping[int, Snapshot]) -> None:
    """Check that every partition with records has a snapshot: without one, any of its hours may be open."""
    missing = sorted(number for number, log in logs.items() if log and number not in snapshots)
    if missing:
        raise UnavailableError(
            f"topic {topic}: no snapshot of the rollup yet of partition {', '.join(map(str, missing))}, so "
            "any hour may still be open; expected a snapshot of each partition: run the worker, then try again"
        )


def _await_stored(
    reader: TopicReader, logs: Mapping[int, range], snapshots: Mapping[int, Snapshot], seconds: float
) -> int:
    """Wait until ui_events has all events that the snapshots count; ingest commits at its own pace.

    The group commits no offset of a partition that has had no records: there, ingest stands where the log begins.

    Returns:
        Number of records that ui_events has and the snapshots don't count.
    """
    deadline = time.monotonic() + seconds
    asked, uncounted = list(snapshots), 0
    while asked:
        found = reader.committed(asked)
        committed = {number: logs[number].start if offset is None else offset for number, offset in found.items()}
        uncounted += sum(max(0, committed[number] - snapshots[number].offset) for number in asked)
        asked = [number for number in asked if committed[number] < snapshots[number].offset]
        if asked and time.monotonic() > deadline:
            number = asked[0]
            raise UnavailableError(
                f"topic {reader.topic}, partition {number}: the group has committed {committed[number]}, the "
                f"rollup has counted up to {snapshots[number].offset}: ui_events may lack the events "
                "between; expected equal offsets: run the worker until it has caught up, then try again"
            )
        if asked:
            time.sleep(_POLL_SECONDS)
    return uncounted
