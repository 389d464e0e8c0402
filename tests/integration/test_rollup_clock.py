"""Closings by the clock on workers whose own time of day is wrong, or becomes wrong: the broker's time counts."""

import random
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer as KafkaProducer
from support.events import settled
from support.processes import Worker, prepare
from support.shifted_clock import COMMAND, shifted

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.session_stats import TABLE
from pipeline.config import Settings, env_name
from pipeline.kafka.client import client_config
from pipeline.producer.encode import Encoder
from pipeline.rollup.fold import HOUR_MS

pytestmark = pytest.mark.integration

_TEN_HOURS = 36_000.0
_JUMPS_AFTER_SECONDS = 8.0
_LATE = "chimera_rollup_late_seconds_count"
_SESSIONS = [str(uuid.UUID(int=number << 64 | number)) for number in range(1, 41)]


def _publish(settings: Settings, family: Family, times: Iterable[int], *, stamped: bool = False) -> None:
    """Publish an event at each time (ms), and none of them late by itself; if `stamped`, with its time."""
    encoder, producer, rng = Encoder(family), KafkaProducer(client_config(settings.kafka)), random.Random(1)
    for ts in times:
        event: dict[str, Any] = {
            "ts": ts,
            "session_id": rng.choice(_SESSIONS),
            "commit_sha": "0" * 40,
            "event_type": "overlay_open",
            "latency_ms": 5,
            "user_agent": "",
            "metadata": "{}",
        }
        key, value = encoder.encode(event)
        producer.produce(family.topic.name, value, key, timestamp=ts if stamped else 0)
    assert producer.flush(30) == 0


def _now_ms() -> int:
    return round(time.time() * 1000)


@pytest.fixture
def idle(environ: dict[str, str]) -> dict[str, str]:
    """Environment of workers for which a partition is idle after a second."""
    return {
        **environ,
        env_name("rollup", "idle_seconds"): "1",
        env_name("kafka", "session_timeout_seconds"): "6",
        env_name("kafka", "heartbeat_interval_seconds"): "1",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }


@pytest.mark.parametrize(
    ("ahead_seconds", "from_seconds"),
    [
        pytest.param(_TEN_HOURS, 0, id="ahead"),
        pytest.param(_TEN_HOURS, _JUMPS_AFTER_SECONDS, id="jumps-while-it-runs"),
    ],
)
def test_a_wall_clock_that_is_ahead_closes_nothing_and_makes_no_event_late(
    ahead_seconds: float, from_seconds: float, settings: Settings, idle: dict[str, str], tmp_path: Path
) -> None:
    """Events of now, a pause longer than the idle time, 400 more: all in time, for the next worker too."""
    family = prepare(settings).family("ui_events")
    with Worker({**idle, **shifted(ahead_seconds, from_seconds)}, tmp_path / "log", COMMAND) as worker:
        worker.wait_until_consuming()
        _publish(settings, family, [_now_ms()] * 20)
        settled(worker, settings, family, 20)
        time.sleep(from_seconds + 4)
        _publish(settings, family, [_now_ms()] * 400)
        settled(worker, settings, family, 420)
        assert worker.metric(_LATE) == 0
        assert worker.lines("closed by the clock") == []
        worker.kill()
    with Worker(idle, tmp_path / "log") as right:
        right.wait_until_consuming()
        _publish(settings, family, [_now_ms()] * 40)
        settled(right, settings, family, 40)
        assert right.metric(_LATE) == 0
        assert right.terminate() == 0


@pytest.mark.parametrize("ahead_seconds", [_TEN_HOURS, -_TEN_HOURS], ids=["ahead", "behind"])
def test_an_hour_that_is_over_by_the_brokers_clock_is_closed_by_any_worker(
    ahead_seconds: float, settings: Settings, idle: dict[str, str], tmp_path: Path
) -> None:
    """The hour of two hours ago is closed, and no later hour is, although the worker's own time of day is wrong."""
    document = yaml.safe_load(settings.topics.file.read_text(encoding="utf-8"))
    for topic in document["topics"].values():
        if topic.get("family") == "ui_events":
            topic["timestamps"] = "producer"  # so that records have the times of their events
    settings.topics.file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    family = prepare(settings).family("ui_events")
    begin = _now_ms() // HOUR_MS * HOUR_MS - 2 * HOUR_MS
    with Worker({**idle, **shifted(ahead_seconds)}, tmp_path / "log", COMMAND) as worker:
        worker.wait_until_consuming()
        _publish(settings, family, [begin + 60_000 * minute for minute in range(30)], stamped=True)
        settled(worker, settings, family, 30)
        worker.wait_for(lambda: _rows(settings) > 0, "rows of the hour that was closed by the clock")
        _publish(settings, family, [_now_ms()] * 40, stamped=True)
        settled(worker, settings, family, 70)
        assert worker.metric(_LATE) == 0
        assert worker.terminate() == 0


def _rows(settings: Settings) -> int:
    with connect(settings.clickhouse) as client:
        return int(client.execute(f"SELECT count() FROM {TABLE}")[0][0])
