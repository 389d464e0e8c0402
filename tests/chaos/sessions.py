"""The oracle for session_stats: it produces events of sessions in fast event time, and knows the rows they must give.

Plain Python derives late events and closed hours from the log and the group's commits, record by record. SQL then
computes the rows of the other events.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from chaos.commits import Commits, Place
from chaos.ledger import DAMAGED, START, Ledger, Verdict
from pipeline.catalog import Catalog, Family
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.session_stats import TABLE
from pipeline.config import Settings
from pipeline.producer.encode import Encoder
from pipeline.rollup.audit import Audit
from pipeline.rollup.fold import HOUR_MS
from pipeline.transport.commit_metadata import Closing

_SESSIONS = 60
_STEP_MS = 12_000  # between two events: 300 steps make an hour
_LATE = 0.01
_LATEST_MS = 5 * HOUR_MS
_TYPES = ("overlay_open", "query_submit", "query_submit", "error")
_COUNTED = "counted"


_Log = Sequence[tuple[int, uuid.UUID]]
"""Offset and identity of a partition's valid records, in log order."""


class _Event(NamedTuple):
    ts: int
    session: uuid.UUID
    appended_at: int

    @property
    def hour(self) -> int:
        return self.ts // HOUR_MS


class Expected(NamedTuple):
    """Expected content of session_stats."""

    counted: Sequence[uuid.UUID]
    """Identities of the events that rows must count."""
    windows: int
    """Number of rows."""
    late: int
    """Number of late events."""
    open: int
    """Number of events in open windows."""


class SessionLedger(Ledger):
    """Producer of ui_events of some sessions: out of order within the grace, and some of them late.

    Args:
        settings: broker and database.
        catalog: the families; only ui_events is produced.
        seed: the same seed gives the same events.
        behind_ms: age of the records' timestamps when they are produced.
    """

    def __init__(self, settings: Settings, catalog: Catalog, seed: int, behind_ms: int) -> None:
        super().__init__(settings, catalog, seed)
        assert catalog.rollup is not None
        self._source = catalog.rollup.source
        self._encoder = Encoder(self._source)
        self._behind_ms = behind_ms
        self._grace_ms = round(settings.rollup.grace_seconds * 1000)
        self._sessions = [self._identity() for _ in range(_SESSIONS)]
        self._now_ms = round(START.timestamp() * 1000)
        self._events: dict[uuid.UUID, _Event] = {}
        self._commits = Commits(settings.kafka)

    def produce(self, family: Family, count: int, *, damaged: float = DAMAGED) -> None:
        """Publish events; the next `flush` waits for their delivery."""
        assert family == self._source
        for _ in range(count):
            self._now_ms += _STEP_MS
            identity, event = self._identity(), self._event()
            _, value = self._encoder.encode(
                {
                    "ts": event.ts,
                    "session_id": str(event.session),
                    "commit_sha": f"{identity.int:040x}",
                    "event_type": self._random.choice(_TYPES),
                    "latency_ms": self._random.randrange(5000),
                    "user_agent": "",
                    "metadata": "{}",
                }
            )
            key = str(event.session).encode()
            if self._random.random() < damaged:
                self._send(family, key, self._damage(value), None, event.appended_at)
            else:
                self._events[identity] = event
                self._send(family, key, value, identity, event.appended_at)

    def rows(self, family: Family) -> dict[uuid.UUID, int]:
        """Return the number of rows of each identity, which is in the column commit_sha: a session has many events."""
        if family != self._source:
            return super().rows(family)
        with connect(self._settings.clickhouse) as client:
            rows = client.execute(f"SELECT commit_sha, count() FROM {family.table} GROUP BY commit_sha")
        return {uuid.UUID(int=int(identity, 16)): count for identity, count in rows}

    def judge(self) -> Verdict:
        """Compare stored with produced events, and session_stats with the expected rows."""
        expected, view = self.expected(), f"{_COUNTED}_events"
        with connect(self._settings.clickhouse) as client:
            client.execute(f"DROP VIEW IF EXISTS {view}")
            client.execute(f"CREATE OR REPLACE TABLE {_COUNTED} (commit_sha String) ENGINE = Memory")
            client.execute(f"INSERT INTO {_COUNTED} VALUES", [(f"{one.int:040x}",) for one in expected.counted])
            client.execute(f"CREATE VIEW {view} AS SELECT * FROM {self._source.table} WHERE commit_sha IN {_COUNTED}")
            audit = Audit(client, view)
            differences = [found for hour in audit.hours(None) for found in audit.differences(hour)]
        return replace(super().judge(), late=expected.late, windows=expected.windows, differences=differences)

    def stored_windows(self) -> int:
        """Return the number of rows of session_stats."""
        with connect(self._settings.clickhouse) as client:
            return int(client.execute(f"SELECT count() FROM {TABLE}")[0][0])

    def expected(self) -> Expected:
        """Return the content that follows from the current log and the closings so far."""
        closings, counted, late, unfinished = self._commits.closings(), list[uuid.UUID](), 0, 0
        for place, log in self._logs().items():
            watermark, in_time = self._replayed(log, sorted(closings.get(place, ())))
            late += len(log) - len(in_time)
            closed = [one for one in in_time if self._events[one].hour < watermark // HOUR_MS]
            unfinished += len(in_time) - len(closed)
            counted += closed
        windows = {(self._events[one].session, self._events[one].hour) for one in counted}
        return Expected(counted, len(windows), late, unfinished)

    def close(self) -> None:
        """Close the connection to the broker."""
        self._commits.close()

    def _event(self) -> _Event:
        """Return a random event; some share a millisecond, and many are on the minute or on the hour."""
        ts = self._now_ms - self._random.randrange(self._grace_ms)
        if self._random.random() < _LATE:
            ts -= self._random.randrange(_LATEST_MS)
        ts -= self._random.choice((0, ts % 60_000))
        appended_at = round(time.time() * 1000) - self._behind_ms
        return _Event(ts, self._random.choice(self._sessions), appended_at)

    def _logs(self) -> Mapping[Place, _Log]:
        logs: defaultdict[Place, list[tuple[int, uuid.UUID]]] = defaultdict(list)
        for identity, at in self._produced[self._source.name].valid.items():
            logs[at[:2]].append((at.offset, identity))
        return {place: sorted(log) for place, log in logs.items()}

    def _replayed(self, log: _Log, closings: Sequence[Closing]) -> tuple[int, list[uuid.UUID]]:
        """Return the watermark at the end of a log, and the events in time."""
        watermark, in_time, left = 0, list[uuid.UUID](), list(closings)
        for offset, identity in log:
            while left and left[0].offset <= offset:
                watermark = max(watermark, left.pop(0).hour * HOUR_MS)
            event = self._events[identity]
            if event.ts >= watermark:
                in_time.append(identity)
            watermark = max(watermark, min(event.ts, event.appended_at) - self._grace_ms)
        return max([watermark, *(closing.hour * HOUR_MS for closing in left)]), in_time
