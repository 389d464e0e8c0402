"""Rows of closed hours on a real ClickHouse: stored once, however often, and also after the token is forgotten."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.catalog import load_catalog
from pipeline.clickhouse.client import connect, describe, kind_of
from pipeline.clickhouse.migrate import migrate
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column
from pipeline.config import Settings
from pipeline.retry import Held, Retry, lease_clock
from pipeline.rollup.emission import Emission
from pipeline.transport.micro_batch import State
from pipeline.transport.partition import PartitionBatches

pytestmark = pytest.mark.integration

_HOUR_SECONDS = 1_767_225_600


def _rows(count: int) -> dict[str, Column]:
    sessions = b"".join(number.to_bytes(16, "big") for number in range(count))
    numbers = {
        name: np.ones(count, np.int64) for name in ("avg_latency_ms", "error_rate", "abandonment_rate", "events_count")
    }
    return {
        "hour": np.full(count, _HOUR_SECONDS, np.uint32),
        "session_id": np.frombuffer(sessions, "V16"),
        **numbers,
        "duration_seconds": np.zeros(count, np.int64),
    }


def _store(
    settings: Settings, rows: dict[str, Column], *, again: bool, token: str = "id/0/hour/7", max_rows: int = 100_000
) -> None:
    """Store an hour as a worker that has just been assigned the partition."""
    family = load_catalog(settings).family("ui_events")
    held = PartitionBatches(family.topic.name, "id", 0, State(0, ()), policy=family.batch, limit=2)
    held.committed(State(0, ()), lease_clock())

    async def renew(_: Held) -> bool:
        return True

    with ThreadPoolExecutor(1) as pool:
        retry = Retry(TABLE, renew, settings.worker, kind_of=kind_of, describe=describe)
        emission = Emission(Sink(settings.clickhouse), retry, pool, max_rows=max_rows)
        asyncio.run(emission.store(held, token, rows, again=again))


def _count(settings: Settings) -> tuple[int, int]:
    with connect(settings.clickhouse) as client:
        ((rows, sessions),) = client.execute(f"SELECT count(), uniqExact(session_id) FROM {TABLE}")
    return rows, sessions


def test_a_repeated_hour_is_stored_once(settings: Settings) -> None:
    """The token is enough if no other worker may have stored the hour."""
    migrate(settings.clickhouse)
    for _ in range(2):
        _store(settings, _rows(5), again=False)
    assert _count(settings) == (5, 5)


def test_an_hour_is_stored_once_when_its_token_is_forgotten(settings: Settings) -> None:
    """The worker looks for its sessions; without that the rows are doubled, so this test would fail."""
    migrate(settings.clickhouse)
    with connect(settings.clickhouse) as client:
        client.execute(f"ALTER TABLE {TABLE} MODIFY SETTING non_replicated_deduplication_window = 0")
    for _ in range(2):
        _store(settings, _rows(5), again=True)
    assert _count(settings) == (5, 5)
    _store(settings, _rows(5), again=False)
    assert _count(settings) == (10, 5)


def test_lost_rows_of_a_known_token_are_inserted_again(settings: Settings) -> None:
    """A killed server may lose them; a repaired day has some of them already."""
    migrate(settings.clickhouse)
    _store(settings, _rows(6), again=False)
    with connect(settings.clickhouse) as client:
        client.execute(f"ALTER TABLE {TABLE} DROP PARTITION '2026-01-01'")
    _store(settings, _rows(2), again=False, token="repaired")
    _store(settings, _rows(6), again=True)
    assert _count(settings) == (6, 6)


def test_a_large_hour_is_stored_in_blocks(settings: Settings) -> None:
    """Each block has a token of its own, so none is dropped as a duplicate of another."""
    migrate(settings.clickhouse)
    for _ in range(2):
        _store(settings, _rows(25), again=False, max_rows=10)
    assert _count(settings) == (25, 25)


def test_an_hour_that_the_ttl_has_expired_is_done(settings: Settings) -> None:
    """Its rows are gone, and aren't stored again by a worker that repeats the hour."""
    migrate(settings.clickhouse)
    _store(settings, _rows(5), again=False)
    with connect(settings.clickhouse) as client:
        client.execute(f"ALTER TABLE {TABLE} MODIFY TTL hour + INTERVAL 30 DAY")
        client.execute(f"OPTIMIZE TABLE {TABLE} FINAL")
    assert _count(settings) == (0, 0)
    _store(settings, _rows(5), again=True)
    assert _count(settings) == (0, 0)
