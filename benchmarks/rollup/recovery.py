"""Memory of very many open windows, and the time to restore them after a kill -9.

A worker counts the events and is killed when all are stored. By then it has written a snapshot of each partition; the
next worker replays the records after the snapshots. It starts at once, so the time includes the broker's wait for the
dead worker: `_SESSION_SECONDS`, not the default of 45 s.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain

import orjson
import psutil
from clickhouse_driver import Client

from benchmarks.process import ContenderError, peak_rss_bytes
from benchmarks.rollup.workload import HOUR_MS, at, first_hour, one_each, session_ids
from benchmarks.stage import Stage
from benchmarks.workload import publish
from pipeline.catalog import load_catalog
from pipeline.clickhouse.migrate import migrate
from pipeline.config import env_name
from pipeline.devstack import WorkerProcess
from pipeline.kafka.topics import TopicAdmin
from pipeline.rollup.snapshot import pack
from pipeline.rollup.store import SnapshotStore

_SESSION_SECONDS = 6.0  # the shortest session that a broker allows by default
_MINUTES = 45  # an event of the hour's last minute folds all but a few of the events
_SHARE_IN_SNAPSHOTS = 0.8
_POLL_SECONDS = 0.05
_STALL_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Measured memory, sizes and time."""

    windows: int
    """Open windows of the second worker at the end."""
    rss_bytes: int
    """Resident memory of a worker with all windows; the larger figure of the two workers."""
    peak_rss_bytes: int
    """Peak resident memory; the larger figure of the two workers."""
    state_bytes: int
    """Size of the state as columns."""
    packed_bytes: int
    """Size of the state in the state topic."""
    replayed: int
    """Number of records after the snapshots."""
    seconds: float
    """Time from the start of the second worker until it had all windows."""


def measure(place: Stage, windows: int) -> Outcome:
    """Fill a worker with windows, kill it, and start another.

    Raises:
        ContenderError: a worker stalled; the message names its log.
        UnavailableError: a worker ended.
    """
    migrate(place.settings.clickhouse)
    sessions = session_ids(windows)
    last_minute = at((first_hour() + 1) * HOUR_MS - 60_000, sessions[: min(windows, 256)])
    events = chain(one_each(sessions, _MINUTES), last_minute)
    workload = publish(place.settings, events, place.bar("publish", windows))
    client = Client(place.settings.clickhouse.host, port=place.settings.clickhouse.native_port)

    def stored() -> bool:
        ((rows,),) = client.execute(f"SELECT count() FROM {place.settings.clickhouse.database}.ui_events")
        return bool(rows == workload.fingerprint.rows)

    def counted() -> bool:
        return second.samples("chimera_rollup_open_windows") == {(): windows}

    def replayed() -> bool:
        windows_there = second.samples("chimera_rollup_open_windows")[()] > 0  # the worker has the partitions
        return windows_there and second.samples("chimera_rollup_records_to_replay") == {(): 0}

    rows = round(windows / workload.partitions * _SHARE_IN_SNAPSHOTS)
    first = _worker(place, {"snapshot_rows": rows, "snapshot_seconds": 86_400})
    with first:
        _wait(first, stored)
        _wait(first, lambda: first.samples("chimera_rollup_snapshot_seconds_count")[()] >= workload.partitions)
        memory = _memory(first)
        first.kill()
    second = _worker(place, {"snapshot_seconds": 1})
    began = time.monotonic()
    with second:
        _wait(second, replayed)
        seconds = time.monotonic() - began
        _wait(second, counted)
        rss, peak = map(max, memory, _memory(second))
    return Outcome(windows, rss, peak, *_state(place), _replayed(second), seconds)


def _worker(place: Stage, settings: Mapping[str, int]) -> WorkerProcess:
    environment = {
        **os.environ,
        **place.stack.environment,
        env_name("registry", "url"): str(place.settings.registry.url),
        env_name("log", "format"): "json",
        env_name("kafka", "session_timeout_seconds"): str(_SESSION_SECONDS),
        env_name("kafka", "heartbeat_interval_seconds"): str(_SESSION_SECONDS / 3),
        **{env_name("rollup", key): str(value) for key, value in settings.items()},
    }
    return WorkerProcess(place.directory / "worker", environment)


def _wait(worker: WorkerProcess, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _STALL_SECONDS
    while not reached():
        if time.monotonic() > deadline:
            raise ContenderError(f"{worker.name} stalled for {_STALL_SECONDS:.0f} s; see {worker.log_file}")
        time.sleep(_POLL_SECONDS)


def _memory(worker: WorkerProcess) -> tuple[int, int]:
    """Resident memory of a worker in bytes, now and at its peak."""
    assert worker.pid is not None
    return psutil.Process(worker.pid).memory_info().rss, peak_rss_bytes(worker.pid)


def _replayed(worker: WorkerProcess) -> int:
    """Number of replayed records of all partitions, from the worker's log."""
    lines = [line for line in worker.log_file.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    return sum(entry["records"] for entry in map(orjson.loads, lines) if entry["event"] == "session_stats recovered")


def _state(place: Stage) -> tuple[int, int]:
    """Size of the newest snapshots of all partitions in bytes, as columns and as written."""
    catalog = load_catalog(place.settings)
    assert catalog.rollup is not None
    topic = catalog.rollup.source.topic
    topic_id = TopicAdmin(place.settings.kafka).ids([topic.name])[topic.name]
    found = SnapshotStore(place.settings.kafka, catalog.rollup.state).load(topic_id, range(topic.partitions))
    snapshots = [loaded.snapshot for loaded in found.values() if loaded.snapshot]
    columns = sum(column.nbytes for snapshot in snapshots for column in snapshot.columns.values())
    return columns, sum(len(chunk) for snapshot in snapshots for chunk in pack(snapshot).chunks)
