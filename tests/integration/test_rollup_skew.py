"""One fast clock starves no other session, late and skewed events are seen, and a second sample isn't late."""

import random
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from confluent_kafka import Producer as KafkaProducer
from support.events import settled
from support.processes import Worker, prepare

from pipeline.catalog import Catalog, Family
from pipeline.cli.produce import produce
from pipeline.cli.rollup import rollup
from pipeline.config import Settings, env_name
from pipeline.kafka.client import client_config
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_HOUR_MS = 3_600_000
_LATE, _SKEWED = "chimera_rollup_late_seconds_count", "chimera_rollup_skewed_events_total"
_SESSIONS = [str(uuid.UUID(int=number << 64 | number)) for number in range(1, 41)]


def _publish(settings: Settings, family: Family, times: Iterator[tuple[str, int]]) -> None:
    """Publish an event of a session at each time (ms), all of them to one partition."""
    encoder, producer = Encoder(family), KafkaProducer(client_config(settings.kafka))
    for session, ts in times:
        event: dict[str, Any] = {
            "ts": ts,
            "session_id": session,
            "commit_sha": "0" * 40,
            "event_type": "overlay_open",
            "latency_ms": 5,
            "user_agent": "",
            "metadata": "{}",
        }
        key, value = encoder.encode(event)
        producer.produce(family.topic.name, value, key, 0)
    assert producer.flush(30) == 0


def _now_ms() -> int:
    return round(time.time() * 1000)


@pytest.mark.parametrize("ahead_ms", [_HOUR_MS, 11 * 60_000, 23 * _HOUR_MS], ids=["hour", "minutes", "day"])
def test_a_session_that_is_ahead_makes_no_right_event_late(
    ahead_ms: int, settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """As local time sent as UTC: the events of all other sessions stay in time; log and metric tell the share."""
    family = prepare(settings).family("ui_events")
    rng = random.Random(3)
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        _publish(settings, family, ((_SESSIONS[0], _now_ms() + ahead_ms) for _ in range(20)))
        _publish(
            settings, family, ((rng.choice(_SESSIONS[1:]), _now_ms() - rng.randrange(550_000)) for _ in range(180))
        )
        settled(worker, settings, family, 200)
        worker.wait_for(lambda: worker.metric(_SKEWED) == 20, "skewed events are counted")
        assert worker.metric(_LATE) == 0
        (line,) = worker.wait_for(lambda: worker.lines("ahead of the broker's time"), "the share is logged")
        assert "most_ahead_seconds" in line
        assert worker.terminate() == 0


def test_late_events_have_a_share_and_are_explained_at_once(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """A quarter of the events is late: a line and a gauge say so, and verify soon explains each difference."""
    family = prepare(settings).family("ui_events")
    begin = _now_ms() // _HOUR_MS * _HOUR_MS - 5 * _HOUR_MS
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        _publish(settings, family, ((session, begin + 60_000) for session in _SESSIONS[:30]))
        _publish(settings, family, ((session, begin + 4 * _HOUR_MS) for session in _SESSIONS[:30]))
        settled(worker, settings, family, 60)
        _publish(settings, family, ((session, begin + 90_000) for session in _SESSIONS[:20]))
        settled(worker, settings, family, 80)
        worker.wait_for(
            lambda: worker.metric("chimera_rollup_snapshot_seconds_count") > 0, "a snapshot of late events", 20
        )
        found = _verified()
        assert (found["differing"], found["explained"], found["unexplained"]) == (20, 20, 0)
        worker.wait_for(lambda: worker.metric(_LATE) == 20, "late events are counted")
        assert len(worker.wait_for(lambda: worker.lines("late events are in no row"), "the share is logged")) == 1
        assert 0.2 < worker.metric("chimera_rollup_late_ratio") <= 1
        assert worker.metric("chimera_rollup_events_total") == 80
        assert worker.terminate() == 0


def test_a_second_sample_continues_after_the_first(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """Nothing of either is late, and session_stats equals SQL over ui_events."""
    catalog = prepare(settings)
    with Worker({**environ, env_name("rollup", "snapshot_seconds"): "1"}, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        for run in (1, 2):
            done = CliRunner().invoke(produce, ["--sample", "3000"], catch_exceptions=False)
            assert done.exit_code == 0, done.output
            _await(worker, catalog, 3000 * run)
        assert worker.metric(_LATE) == 0
        time.sleep(2)
        found = _verified()
        assert found["hours"] > 0
        assert sum(found[kind] for kind in ("differing", "missing", "extra", "split")) == 0
        assert worker.terminate() == 0


def _await(worker: Worker, catalog: Catalog, events: int) -> None:
    names = [family.name for family in catalog.families]

    def stored() -> bool:
        return sum(worker.metric("chimera_rows_inserted_total", family=name) for name in names) >= events

    worker.wait_for(stored, "all events are stored")


def _verified() -> Any:
    return orjson.loads(
        CliRunner().invoke(rollup, ["verify", "--json"], catch_exceptions=False).stdout.splitlines()[-1]
    )
