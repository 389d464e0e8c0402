"""The check of the deduplication windows, on real tables."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from support.events import events, publish
from support.kafka_requests import answer_to
from support.processes import Worker, eventually, lag, prepare

from pipeline.catalog import load_catalog
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.deduplication import (
    check_deduplication_windows,
    least_window_blocks,
    window_blocks_needed,
    window_shares,
)
from pipeline.clickhouse.migrate import migrate
from pipeline.clickhouse.sink import Sink
from pipeline.config import Settings, env_name, load_settings
from pipeline.decode.decoder import Decoder
from pipeline.errors import HaltError
from pipeline.producer.encode import Encoder
from pipeline.worker.preflight import check_windows

pytestmark = pytest.mark.integration

_NAME = "non_replicated_deduplication_window"
_PARTITIONS = 2  # of each topic in tests
_DAYS = 1500
_LAST_DAY = datetime(2026, 1, 31, tzinfo=UTC)
_BLOCKS_A_SECOND = _PARTITIONS / 0.002  # as docs/reliability.md assumes, with one insert of a partition at once
_LONG_SECONDS = 240.0  # a look-up of 1,500 days, beside other work; only a test that fails waits so long
_ORPHANED_SECONDS = 2 + 0.3 + 1  # session timeout, heartbeat and drain
_SHORT = {
    env_name("kafka", "session_timeout_seconds"): "2",
    env_name("kafka", "heartbeat_interval_seconds"): "0.3",
    env_name("worker", "insert_threads"): "1",
    env_name("worker", "drain_seconds"): "1",
    env_name("worker", "lease_seconds"): "1",
}
_NO_COMMIT = {env_name("worker", "commit_interval_seconds"): "600"}


def _check(settings: Settings, partitions: int = _PARTITIONS) -> None:
    catalog = load_catalog(settings)
    check_deduplication_windows(settings, catalog, {family.topic.name: partitions for family in catalog.families})


def test_migrated_tables_are_wide_enough(settings: Settings) -> None:
    """The windows of the migrations are wide enough for the default settings."""
    migrate(settings.clickhouse)
    _check(settings)


@pytest.mark.parametrize(
    ("change", "live"),
    [
        pytest.param("RESET SETTING {name}", "not set", id="server default"),
        pytest.param("MODIFY SETTING {name} = {too_few}", "{too_few}", id="one too few"),
    ],
)
def test_a_window_that_is_too_narrow_halts(settings: Settings, change: str, live: str) -> None:
    """The error gives the table, its setting, the value and the expected value; the expected value is accepted."""
    migrate(settings.clickhouse)
    needed = least_window_blocks(settings, _PARTITIONS)
    values = {"name": _NAME, "too_few": needed - 1}
    with connect(settings.clickhouse) as client:
        client.execute(f"ALTER TABLE episodes {change.format(**values)}")
        found = rf"episodes at .*: {_NAME} is {live.format(**values)}"
        expected = rf"{found}, expected at least {needed} .*LEASE_SECONDS=5, .*DRAIN_SECONDS=6;"
        with pytest.raises(HaltError, match=expected):
            _check(settings)
        client.execute(f"ALTER TABLE episodes MODIFY SETTING {_NAME} = {needed}")
    _check(settings)


def test_the_partitions_on_the_broker_count(settings: Settings) -> None:
    """A topic with more partitions than topics.yaml declares needs a wider window; the check asks the broker."""
    prepare(settings)
    _check(settings, 64)
    with pytest.raises(HaltError, match="for 1000 partitions"):
        _check(settings, 1000)
    with connect(settings.clickhouse) as client:
        client.execute(f"ALTER TABLE episodes MODIFY SETTING {_NAME} = 11999")
    check_windows(settings, load_catalog(settings))
    topic = load_catalog(settings).family("episodes").topic.name
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    answer_to(lambda: admin.create_partitions([NewPartitions(topic, 16)])[topic])
    with pytest.raises(HaltError, match=r"episodes at .* is 11999, expected at least 12000 for 16 partitions"):
        eventually(lambda: check_windows(settings, load_catalog(settings)), "the broker's new partitions")


@pytest.mark.timeout(600)
def test_a_killed_workers_insert_is_stored_once_however_much_others_insert_meanwhile(
    environ: dict[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The narrowest window that the worker accepts outlasts a backfill of 1,500 days during a session timeout."""
    for name, value in _SHORT.items():
        monkeypatch.setenv(name, value)
    shortened, family = load_settings(), prepare(settings).family("episodes")
    window = window_blocks_needed(shortened, _PARTITIONS)
    encoder = Encoder(family)
    values = [
        encoder.encode({**event, "ts": _LAST_DAY - timedelta(days=day)}).value
        for day, event in enumerate(events(family.name, _DAYS))
    ]
    rows = dict(Decoder(family).decode(values).columns)
    with connect(settings.clickhouse) as client:
        client.execute(f"ALTER TABLE {family.table} MODIFY SETTING {_NAME} = {window}")
        client.execute(f"SYSTEM STOP MERGES {family.table}")  # they take most of the CPU, and move no token
        with Worker(environ | _SHORT | _NO_COMMIT, tmp_path / "first") as worker:
            worker.wait_until_consuming()
            publish(settings, family.topic.name, values)
            worker.wait_for(lambda: client.execute(f"SELECT count() FROM {family.table}") == [(_DAYS,)], "rows")
        assert lag(settings, family.topic.name)
        others = range(1, 1 + math.ceil(_BLOCKS_A_SECOND * _ORPHANED_SECONDS / _DAYS))
        for other in others:
            Sink(settings.clickhouse).insert(family.table, {**rows, "ts": np.asarray(rows["ts"]) + other}, str(other))
        with Worker(environ | _SHORT, tmp_path / "second") as worker:
            worker.wait_for(lambda: lag(settings, family.topic.name) == 0, "committed", _LONG_SECONDS)
        counts = client.execute(f"SELECT count(), uniqExact(ts, run_id) FROM {family.table}")
    assert counts == [(_DAYS * (1 + len(others)),) * 2]


def test_partitions_share_a_window_that_is_too_narrow_for_their_fastest_inserts(settings: Settings) -> None:
    """Each gets the same part of it; a window that does for all needs no shares."""
    migrate(settings.clickhouse)
    catalog = load_catalog(settings)
    partitions = {family.topic.name: 64 if family.name == "ui_events" else 1 for family in catalog.families}
    check_deduplication_windows(settings, catalog, partitions)
    shares = window_shares(settings, catalog, partitions)
    assert {table: share for table, share in shares.items() if share < math.inf} == {
        "ui_events": 800_000 / 64,
        "session_stats": 400_000 / 64,
    }


def test_a_session_that_is_longer_than_the_window_halts(settings: Settings) -> None:
    """A window of 1,000 blocks is too narrow for two partitions and a session timeout of 85 s."""
    migrate(settings.clickhouse)
    kafka = settings.kafka.model_copy(update={"session_timeout_seconds": 85.0})
    with connect(settings.clickhouse) as client:
        client.execute(f"ALTER TABLE episodes MODIFY SETTING {_NAME} = 1000")
    with pytest.raises(HaltError, match="SESSION_TIMEOUT_SECONDS=85"):
        _check(settings.model_copy(update={"kafka": kafka}))
