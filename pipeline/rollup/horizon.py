"""How far session_stats is final: which hours every partition has emitted, and which late events came to them.

Read from the snapshots of the stream job, which know both.
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
    """What the stream job has done with."""

    closed_before: float
    """Hour number: all windows of earlier hours are in session_stats. Infinite when nothing can be open."""
    snapshots: tuple[Snapshot, ...] = ()
    """One of each partition that has one."""

    def closed(self, hour: Hour) -> bool:
        """Whether every partition has emitted it."""
        return hour.number < self.closed_before

    def late_events(self, hour: Hour) -> Counter[UUID]:
        """How many events of each session came too late for the hour; of hours long ago nobody knows any more."""
        late = Counter[UUID]()
        for snapshot in self.snapshots:
            here = np.asarray(snapshot.columns["late.hour"]) == hour.number
            sessions, counts = (snapshot.columns[f"late.{name}"][here].tolist() for name in ("session_id", "count"))
            late.update({UUID(bytes=session): count for session, count in zip(sessions, counts, strict=True)})
        return late


def explains(late: Mapping[UUID, int], difference: Difference) -> bool:
    """Whether the row lacks as many events as came too late for it."""
    return 0 < difference.uncounted_events == late.get(difference.session_id, 0)


def read_horizon(
    settings: Settings,
    rollup: RollupSpec,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    clock: Callable[[], float] = time.time,
    *,
    catch_up_seconds: float = _CATCH_UP_SECONDS,
) -> Horizon:
    """Read the newest snapshots, and wait a moment where ClickHouse isn't as far as they are.

    Args:
        settings: the broker, the worker's group, and the grace.
        rollup: the topic that is rolled up, and that of the state.
        progress: called with the number of records read and of all there are.
        clock: seconds since 1970.
        catch_up_seconds: time that ingest has to catch up with the snapshots.

    Raises:
        HaltError: a topic isn't there, or the broker refuses.
        UnavailableError: the broker doesn't answer, a partition has no snapshot yet, or ingest is behind for long.
    """
    kafka, topic = settings.kafka, rollup.source.topic.name
    topic_id = _topic_id(kafka, rollup.source.topic, rollup.state)
    with TopicReader(kafka, topic) as reader:
        logs = reader.ranges()
        loaded = SnapshotStore(kafka, rollup.state).load(topic_id, logs.keys(), progress)
        snapshots = {partition: found.snapshot for partition, found in loaded.items() if found.snapshot}
        _check_complete(topic, logs, snapshots)
        _await_stored(reader, snapshots, catch_up_seconds)
    by_clock = int((clock() - settings.rollup.grace_seconds) // HOUR_SECONDS)
    closed = (_closed_before(snapshot, logs[partition], by_clock) for partition, snapshot in snapshots.items())
    return Horizon(min(closed, default=math.inf), tuple(snapshots.values()))


def _closed_before(snapshot: Snapshot, log: range, by_clock: int) -> int:
    """A partition at rest, all of whose windows are stored, keeps no hour open that is over: its next event is to come.

    Its watermark stands where the last event left it, and other partitions go on.
    """
    at_rest = snapshot.offset >= log.stop and not any(len(snapshot.columns[name]) for name in _UNFINISHED)
    return max(snapshot.emitted_before, by_clock) if at_rest else snapshot.emitted_before


def _topic_id(settings: KafkaSettings, *topics: TopicSpec) -> str:
    """That of the first one, when all are there."""
    ids = TopicAdmin(settings).ids(topic.name for topic in topics)
    check_topics_exist(settings, topics, ids)
    return ids[topics[0].name]


def _check_complete(topic: str, logs: Mapping[int, range], snapshots: Mapping[int, Snapshot]) -> None:
    """A partition with records and no snapshot may have open windows of any hour."""
    missing = sorted(number for number, log in logs.items() if log and number not in snapshots)
    if missing:
        raise UnavailableError(
            f"topic {topic}: no snapshot of the rollup yet of partition {', '.join(map(str, missing))}, so "
            "any hour may still be open; expected one soon after the worker has read it: run the worker, then try again"
        )


def _await_stored(reader: TopicReader, snapshots: Mapping[int, Snapshot], seconds: float) -> None:
    """Wait until ui_events has all events that the snapshots count; ingest commits at its own pace."""
    deadline = time.monotonic() + seconds
    asked = list(snapshots)
    while asked:
        committed = {number: -1 if offset is None else offset for number, offset in reader.committed(asked).items()}
        asked = [number for number in asked if committed[number] < snapshots[number].offset]
        if asked and time.monotonic() > deadline:
            number = asked[0]
            raise UnavailableError(
                f"topic {reader.topic}, partition {number}: the group has committed {max(committed[number], 0)}, the "
                f"rollup has counted up to {snapshots[number].offset}: ui_events may lack what is between; "
                "expected the same, as soon as the worker has caught up: run it, then try again"
            )
        if asked:
            time.sleep(_POLL_SECONDS)
