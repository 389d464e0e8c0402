"""Contents of the logs that workers write: dead letters by reason, and the rollup's snapshots. All is read once."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import Message

from pipeline.catalog import Catalog
from pipeline.config import KafkaSettings
from pipeline.dlq.letters import read_record
from pipeline.dlq.unsettled import Unsettled
from pipeline.kafka.following import LogFollower
from pipeline.kafka.standing import Standing
from pipeline.operations.monitor.server_watch import moment
from pipeline.operations.monitor.state import RollupState, UnsettledLetters
from pipeline.operations.monitor.unsaved import UnsavedRecords
from pipeline.rollup.glance import DamagedSnapshotError, Glance, glance
from pipeline.rollup.keys import MANIFEST, Key


@dataclass(frozen=True, slots=True)
class _Snapshot:
    at: float
    seen: Glance


class WrittenLogs:
    """Dead-letter topics and the rollup's state topic.

    Args:
        settings: the broker, and the group whose snapshots count.
        catalog: the families and the rollup.
        answer_seconds: longest wait for records.
    """

    def __init__(self, settings: KafkaSettings, catalog: Catalog, *, answer_seconds: float) -> None:
        self._group = settings.group_id
        self._letters = {family.dead_letters.name: Unsettled(family.topic.name) for family in catalog.families}
        self._state_topic = catalog.rollup.state.name if catalog.rollup else None
        self._follower = LogFollower(settings, answer_seconds=answer_seconds)
        self._read: set[str] = set()
        self._come = Counter[str]()
        self._unread: dict[str, int] = {}
        self._snapshots: dict[int, _Snapshot] = {}
        self._source = catalog.rollup.source.topic.name if catalog.rollup else None
        self._unsaved = UnsavedRecords()
        self._lock = threading.Lock()

    @property
    def topics(self) -> tuple[str, ...]:
        """Names of the topics that are read."""
        return (*self._letters, *([self._state_topic] if self._state_topic else []))

    def look(self, standing: Standing) -> None:
        """Read what is new.

        Raises:
            UnavailableError, HaltError: as from `LogFollower.read`.
        """
        for topic in self.topics:
            ends = {place: end for place, end in standing.ends.items() if place.topic == topic}
            logs = {place: range(standing.begins.get(place, end), end) for place, end in ends.items()}
            self._unread[topic] = self._follower.left(logs)
            for message in self._follower.read(logs):
                with self._lock:
                    self._note(topic, message)
                self._unread[topic] = max(0, self._unread[topic] - 1)
            self._unread[topic] = 0
            if topic in self._letters:
                with self._lock:
                    self._letters[topic].forget({place.partition: log.start for place, log in logs.items()})
            if logs or topic in standing.missing:
                self._read.add(topic)

    def compare(self, standing: Standing, now: float) -> None:
        """Compare the newest snapshots with the commits of the rollup's source."""
        if self._state_topic not in self._read:
            return
        commits = {place.partition: offset for place, offset in standing.commits.items() if place.topic == self._source}
        with self._lock:
            self._unsaved.compare(now, commits, {part: each.seen.offset for part, each in self._snapshots.items()})

    def dead_letters(self, topic: str, now: float) -> UnsettledLetters:
        """Return the dead letters of a topic that are still to be settled."""
        with self._lock:
            counts, oldest = self._letters[topic].counts(), self._letters[topic].oldest()
        known = topic in self._read
        age = None if oldest is None else max(0.0, now - oldest)
        unread = self._unread.get(topic, 0)
        return UnsettledLetters(topic, sum(counts.values()) if known else None, counts, age, unread)

    def come(self, topic: str) -> int:
        """Return the number of dead letters that have come to a topic since it was read for the first time."""
        return self._come[topic]

    def rollup(self, newest_hour: float | None, now: float) -> RollupState | None:
        """Return the rollup's state; None without a rollup."""
        if self._state_topic is None:
            return None
        with self._lock:
            found: Mapping[int, _Snapshot] = dict(self._snapshots)
            waited = self._unsaved.seconds(now)
        known = self._state_topic in self._read
        watermark = min((each.seen.watermark for each in found.values()), default=0)
        return RollupState(
            open_windows=sum(each.seen.open_windows for each in found.values()) if known else None,
            waiting_events=sum(each.seen.waiting_events for each in found.values()) if known else None,
            watermark=moment(watermark / 1000) if watermark > 0 else None,
            newest_hour=moment(newest_hour),
            snapshot_at=moment(max((each.at for each in found.values()), default=None)),
            unsaved_seconds=waited if known else None,
        )

    def _note(self, topic: str, message: Message) -> None:
        if topic in self._letters:
            new = self._letters[topic].add(read_record(message))
            self._come[topic] += new and topic in self._read
            return
        key, value = Key.parse(message.key() or b""), message.value()
        if key is None or key.group != self._group or key.part != MANIFEST or value is None:
            return
        try:
            seen = glance(value)
        except DamagedSnapshotError:  # another version's, or half of one: the worker looks closer
            return
        at = message.timestamp()[1] / 1000
        if key.partition not in self._snapshots or at >= self._snapshots[key.partition].at:
            self._snapshots[key.partition] = _Snapshot(at, seen)
