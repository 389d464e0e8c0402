"""The rollup end to end: session_stats equals the result of SQL over ui_events, also after workers were killed."""

import random
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from support.events import settled
from support.kafka_requests import answer_to
from support.processes import Worker, lag, prepare

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.session_stats import TABLE
from pipeline.config import Settings, env_name
from pipeline.kafka.client import client_config
from pipeline.producer.encode import Encoder
from pipeline.rollup.audit import Audit, Difference
from pipeline.rollup.fold import HOUR_MS

pytestmark = pytest.mark.integration

_GRACE_MS = 600_000
_BEGIN = 1_760_000_400_000 // HOUR_MS * HOUR_MS
_SESSIONS = [str(uuid.UUID(int=number << 64 | number)) for number in range(1, 41)]
_TYPES = ("overlay_open", "query_submit", "query_submit", "error")


def _event(ts: int, session: str = _SESSIONS[0], event_type: str = "overlay_open") -> dict[str, Any]:
    return {
        "ts": ts,
        "session_id": session,
        "commit_sha": "0" * 40,
        "event_type": event_type,
        "latency_ms": ts % 997,
        "user_agent": "",
        "metadata": "{}",
    }


def _events(count: int, hours: float, seed: int, begin: int = _BEGIN) -> list[dict[str, Any]]:
    """Events out of order within the grace."""
    rng = random.Random(seed)
    times = [begin + round(hours * HOUR_MS * number / count) for number in range(count)]
    times.sort(key=lambda ts: ts + rng.uniform(0, _GRACE_MS - 1))
    return [_event(ts, rng.choice(_SESSIONS), rng.choice(_TYPES)) for ts in times]


def _publish(
    settings: Settings, family: Family, events: Iterable[Mapping[str, Any]], key: bytes = b"", *, old: bool = False
) -> None:
    """Publish each session to its partition, with its own key by default; if `old`, with the event's time."""
    encoder, producer = Encoder(family), KafkaProducer({**client_config(settings.kafka), "linger.ms": 50})
    for event in events:
        message = encoder.encode(event)
        partition = _SESSIONS.index(event["session_id"]) % 2
        timestamp = event["ts"] if old else 0
        producer.produce(family.topic.name, message.value, key or message.key, partition, timestamp=timestamp)
    assert producer.flush(30) == 0


def _soon_followed(environ: dict[str, str]) -> dict[str, str]:
    """Environment in which the broker notices a killed worker within seconds."""
    return {
        **environ,
        env_name("kafka", "session_timeout_seconds"): "6",
        env_name("kafka", "heartbeat_interval_seconds"): "1",
    }


def _stats(settings: Settings) -> int:
    with connect(settings.clickhouse) as client:
        return int(client.execute(f"SELECT count() FROM {TABLE}")[0][0])


def _expected(settings: Settings, before: int) -> int:
    """Number of windows of the hours before that one."""
    windows = (
        f"SELECT uniqExact(session_id, toStartOfHour(ts)) FROM ui_events WHERE toUnixTimestamp(ts) < {before * 3600}"
    )
    with connect(settings.clickhouse) as client:
        return int(client.execute(windows)[0][0])


def _differences(settings: Settings, before: int) -> list[Difference]:
    """Differences between session_stats and SQL over ui_events in the hours before that one."""
    with connect(settings.clickhouse) as client:
        audit = Audit(client, "ui_events")
        hours = [hour for hour in audit.hours(None) if hour.number < before]
        return [difference for hour in hours for difference in audit.differences(hour)]


def _delete_before(settings: Settings, family: Family, offset: int) -> None:
    """Delete the records before an offset in both partitions, as retention does."""
    admin = AdminClient({**client_config(settings.kafka)})
    for place in [TopicPartition(family.topic.name, number, offset) for number in (0, 1)]:
        answer_to(lambda place=place: admin.delete_records([place])[place])  # type: ignore[misc]


def test_closed_hours_equal_sql_over_ui_events(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """Each closed hour has each row once, and an open hour has none; late events are in ui_events alone."""
    family = prepare(settings).family("ui_events")
    events, last_hour = _events(3000, 5.5, seed=1), _BEGIN // HOUR_MS + 5
    late = [_event(_BEGIN + 17, session) for session in _SESSIONS[:2]]
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        _publish(settings, family, events)
        settled(worker, settings, family, len(events))
        expected = _expected(settings, last_hour)
        worker.wait_for(lambda: _stats(settings) == expected, "all rows of closed hours")
        assert _differences(settings, last_hour) == []
        _publish(settings, family, late)
        settled(worker, settings, family, len(events) + len(late))
        worker.wait_for(lambda: worker.metric("chimera_rollup_late_seconds_count") == len(late), "late events counted")
        assert _stats(settings) == expected
        assert len(_differences(settings, last_hour)) == len(late)
        assert worker.terminate() == 0


def test_a_killed_worker_is_followed_by_one_that_goes_on(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """The next worker restores a snapshot, or reads the whole log: no row is lost, doubled or different."""
    family = prepare(settings).family("ui_events")
    events, last_hour = _events(3000, 5.5, seed=2), _BEGIN // HOUR_MS + 5
    environ = _soon_followed({**environ, env_name("rollup", "snapshot_seconds"): "3600"})
    for part, snapshot_rows in ((events[:1500], 400), (events[1500:], 400_000)):
        with Worker({**environ, env_name("rollup", "snapshot_rows"): f"{snapshot_rows}"}, tmp_path / "log") as worker:
            worker.wait_until_consuming()
            _publish(settings, family, part)
            settled(worker, settings, family, len(part))
            if snapshot_rows < len(part):
                worker.wait_for(lambda: worker.metric("chimera_rollup_snapshot_seconds_count") > 1, "snapshots")
            worker.kill()
    expected = _expected(settings, last_hour)
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        worker.wait_for(lambda: len(worker.lines("session_stats recovered")) == 2, "both partitions recovered")
        worker.wait_for(lambda: _stats(settings) == expected, "all rows of closed hours")
        assert worker.terminate() == 0
    assert _differences(settings, last_hour) == []


def test_an_idle_partition_is_closed_by_the_clock(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """The last hour is closed without a later record; the next worker knows, and takes later events of it for late."""
    document = yaml.safe_load(settings.topics.file.read_text(encoding="utf-8"))
    for topic in document["topics"].values():
        if topic.get("family") == "ui_events":
            topic["timestamps"] = "producer"  # so that records have the times of their events
    settings.topics.file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    family = prepare(settings).family("ui_events")
    environ = _soon_followed({**environ, env_name("rollup", "idle_seconds"): "1"})
    begin = round(time.time() * 1000) // HOUR_MS * HOUR_MS - 2 * HOUR_MS
    events = _events(200, 0.5, seed=3, begin=begin)
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        _publish(settings, family, events, old=True)
        expected = len({event["session_id"] for event in events})
        worker.wait_for(lambda: _stats(settings) == expected, "rows of the hour that was closed by the clock")
        worker.kill()
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        _publish(settings, family, _events(10, 0.9, seed=4, begin=begin), old=True)
        worker.wait_for(lambda: worker.metric("chimera_rollup_late_seconds_count") == 10, "late events counted")
        _publish(settings, family, [_event(begin + 2 * HOUR_MS, session) for session in _SESSIONS[:2]], old=True)
        settled(worker, settings, family, 12)
        assert _stats(settings) == expected
        assert sum(difference.uncounted_events for difference in _differences(settings, begin // HOUR_MS + 1)) == 10


def test_a_key_that_is_no_session_is_counted_and_logged_once(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """The event is stored all the same."""
    family = prepare(settings).family("ui_events")
    events = _events(50, 1, seed=5)
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        _publish(settings, family, events, key=b"somebody")
        settled(worker, settings, family, len(events))
        assert worker.metric("chimera_rollup_foreign_keys_total") == len(events)
        _publish(settings, family, events)
        settled(worker, settings, family, 2 * len(events))
        assert worker.metric("chimera_rollup_foreign_keys_total") == len(events)
        assert len(worker.lines("the key of a record isn't its session_id")) == 1


def test_records_deleted_before_their_replay_are_logged(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """The log names their number and the days to repair; ingest and the rest of the rollup go on."""
    family = prepare(settings).family("ui_events")
    events, last_hour = _events(1000, 3.5, seed=6), _BEGIN // HOUR_MS + 3
    without = {**environ, env_name("rollup", "enabled"): "false"}
    with Worker(without, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        _publish(settings, family, events)
        settled(worker, settings, family, len(events))
        assert worker.terminate() == 0
    assert _stats(settings) == 0
    _delete_before(settings, family, 100)
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        worker.wait_for(lambda: worker.metric("chimera_rollup_records_missing_total") == 200, "what is missing counted")
        day = datetime.fromtimestamp(_BEGIN / 1000, UTC).date().isoformat()
        assert [day in line for line in worker.lines("chimera rollup repair")] == [True, True]
        more = _events(100, 0.5, seed=7, begin=last_hour * HOUR_MS + HOUR_MS)
        _publish(settings, family, more)
        settled(worker, settings, family, len(more))
        worker.wait_for(lambda: _stats(settings) > 0, "rows of what is left")
        assert worker.terminate() == 0
    assert len(_differences(settings, last_hour)) > 0


def test_a_busy_worker_writes_snapshots_when_it_stops(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """Ingest may be behind: the stop doesn't wait for it, and the next worker has little to replay."""
    document = yaml.safe_load(settings.topics.file.read_text(encoding="utf-8"))
    document["defaults"]["batch"]["max_rows"] = 500
    settings.topics.file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    family = prepare(settings).family("ui_events")
    for _ in range(20):
        _publish(settings, family, _events(5000, 1, seed=8))
    slow = {env_name("worker", "insert_threads"): "1", env_name("rollup", "snapshot_seconds"): "3600"}
    with Worker({**environ, **slow}, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        worker.wait_for(lambda: worker.metric("chimera_rows_inserted_total", family=family.name) > 20_000, "some rows")
        assert worker.terminate() == 0
        assert worker.lines("didn't release") == []
    with Worker({**environ, **slow}, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        worker.wait_for(lambda: lag(settings, family.topic.name) == 0, "all of it")
        replayed = [int(line.rpartition("records=")[2].split()[0]) for line in worker.lines("session_stats recovered")]
        assert sum(replayed) < 5000
        assert worker.terminate() == 0
