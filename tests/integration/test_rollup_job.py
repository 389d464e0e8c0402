"""The stream job end to end: session_stats is what SQL makes of ui_events, and stays so whatever happens to workers."""

import random
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from events import settled
from processes import Worker, prepare

from pipeline.clickhouse import connect
from pipeline.config import Settings, env_name
from pipeline.encode import Encoder
from pipeline.families import Family
from pipeline.rollup import TABLE
from pipeline.rollup.audit import Audit
from pipeline.rollup.fold import HOUR_MS

pytestmark = pytest.mark.integration

_GRACE_MS = 600_000
_BEGIN = 1_760_000_400_000 // HOUR_MS * HOUR_MS
_SESSIONS = [str(uuid.UUID(int=number << 64 | number)) for number in range(1, 41)]
_TYPES = ("overlay_open", "query_submit", "query_submit", "error")

Events = list[dict[str, Any]]


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


def _events(count: int, hours: float, seed: int, begin: int = _BEGIN) -> Events:
    """Out of order within the grace, two to a partition's end that are later than all others."""
    rng = random.Random(seed)
    times = [begin + round(hours * HOUR_MS * number / count) for number in range(count)]
    times.sort(key=lambda ts: ts + rng.uniform(0, _GRACE_MS - 1))
    return [_event(ts, rng.choice(_SESSIONS), rng.choice(_TYPES)) for ts in times]


def _publish(settings: Settings, family: Family, events: Iterable[Mapping[str, Any]], **how: Any) -> None:
    """Each session to a partition of its own choice."""
    encoder, producer = Encoder(family), KafkaProducer({**settings.kafka.client, "linger.ms": 50})
    for event in events:
        message = encoder.encode(event)
        partition = _SESSIONS.index(event["session_id"]) % 2
        producer.produce(family.topic.name, message.value, how.get("key", message.key), partition)
    assert producer.flush(30) == 0


def _stats(settings: Settings) -> int:
    with connect(settings.clickhouse) as client:
        return int(client.execute(f"SELECT count() FROM {TABLE}")[0][0])


def _expected(settings: Settings, before: int) -> int:
    """Windows of hours before that one."""
    with connect(settings.clickhouse) as client:
        query = f"SELECT uniqExact(session_id, toStartOfHour(ts)) FROM ui_events WHERE toUnixTimestamp(ts) < {before * 3600}"
        return int(client.execute(query)[0][0])


def _differing(settings: Settings, before: int) -> list[Any]:
    """Rows of hours before that one that aren't what SQL makes of ui_events."""
    with connect(settings.clickhouse) as client:
        audit = Audit(client, "ui_events")
        hours = [hour for hour in audit.hours() if hour.number < before]
        return [difference for hour in hours for difference in audit.differences(hour)]


def test_closed_hours_are_what_sql_makes_of_them(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """Every row of every hour that is over, once; none of one that isn't; late events are in ui_events alone."""
    family = prepare(settings).family("ui_events")
    events, last_hour = _events(3000, 5.5, seed=1), _BEGIN // HOUR_MS + 5
    late = [_event(_BEGIN + 17, session) for session in _SESSIONS[:2]]
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        _publish(settings, family, events)
        settled(worker, settings, family, len(events))
        expected = _expected(settings, last_hour)
        worker.wait_for(lambda: _stats(settings) == expected, "all rows of closed hours")
        assert _differing(settings, last_hour) == []
        _publish(settings, family, late)
        settled(worker, settings, family, len(events) + len(late))
        worker.wait_for(lambda: worker.metric("chimera_rollup_late_seconds_count") == len(late), "late events counted")
        assert _stats(settings) == expected
        assert len(_differing(settings, last_hour)) == len(late)
        assert worker.terminate() == 0
