"""Rows of closed hours on a real ClickHouse: stored once, however often, and also after the token is forgotten."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

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
from pipeline.transport.commit_metadata import JointInsert
from pipeline.transport.micro_batch import State
from pipeline.transport.partition import PartitionBatches

pytestmark = pytest.mark.integration

_HOUR_SECONDS = 1_767_225_600
_JOINT = JointInsert("9f86d081884c7d65", 7)


def _rows(count: int, *, hours_later: int = 0, first: int = 0) -> dict[str, Column]:
    """Rows of an hour, with the sessions from the first on."""
    sessions = b"".join(number.to_bytes(16, "big") for number in range(first, first + count))
    numbers = {
        name: np.ones(count, np.int64) for name in ("avg_latency_ms", "error_rate", "abandonment_rate", "events_count")
    }
    return {
        "hour": np.full(count, _HOUR_SECONDS + 3600 * hours_later, np.uint32),
        "session_id": np.frombuffer(sessions, "V16"),
        **numbers,
        "duration_seconds": np.zeros(count, np.int64),
    }


def _held(settings: Settings, joint_insert: JointInsert | None = None) -> PartitionBatches:
    """A partition that this worker has just been assigned."""
    family = load_catalog(settings).family("ui_events")
    state = State(0, (), (), joint_insert)
    held = PartitionBatches(family.topic.name, "id", 0, state, policy=family.batch, limit=2)
    held.on_broker.accept(state, lease_clock())
    return held


@contextmanager
def _emission(settings: Settings, *, max_rows: int = 100_000) -> Iterator[Emission]:
    async def renew(_: Held) -> bool:
        return True

    with ThreadPoolExecutor(1) as pool:
        retry = Retry(TABLE, renew, settings.worker, kind_of=kind_of, describe=describe)
        yield Emission(Sink(settings.clickhouse), retry, pool, max_rows=max_rows)


def _store(
    settings: Settings,
    rows: dict[str, Column],
    *,
    again: bool,
    token: str = "id/0/hour/7",
    max_rows: int = 100_000,
) -> None:
    """Store an hour."""
    with _emission(settings, max_rows=max_rows) as emission:
        asyncio.run(emission.store(_held(settings), token, rows, again=again))


def _close(settings: Settings, rows: dict[str, Column]) -> bool:
    """Insert an hour under the token of the joint insert; False if the server refuses that."""
    with _emission(settings) as emission:
        return asyncio.run(emission.close_joint_insert(_held(settings, _JOINT), _JOINT, rows))


def _store_jointly(settings: Settings, *rows: dict[str, Column]) -> None:
    """Store hours in one insert."""
    with _emission(settings) as emission:
        assert asyncio.run(emission.store_jointly({_held(settings, _JOINT): _JOINT}, rows))


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


def test_a_joint_insert_that_arrives_late_adds_nothing(settings: Settings) -> None:
    """The next owners inserted their hours under its token; what was refused goes under the hours' own tokens."""
    migrate(settings.clickhouse)
    hours = [_rows(5), _rows(5, first=5), _rows(5, hours_later=24), _rows(5, hours_later=48, first=5)]
    assert [_close(settings, hour) for hour in hours] == [True, False, True, True]
    assert _count(settings) == (15, 10)
    _store_jointly(settings, *hours)
    assert _count(settings) == (15, 10), "each day is known"
    for number, hour in enumerate(hours):
        _store(settings, hour, again=True, token=f"id/{number % 2}/hour/{number}")
    assert _count(settings) == (20, 10)


def test_a_joint_insert_that_arrives_in_between_adds_what_is_missing(settings: Settings) -> None:
    """The server drops the day that an owner stored under its token; the other owners store their part of that day."""
    migrate(settings.clickhouse)
    hours = [_rows(5), _rows(5, first=5), _rows(5, hours_later=24), _rows(5, hours_later=24, first=5)]
    assert _close(settings, hours[0])
    _store_jointly(settings, *hours)
    assert _count(settings) == (15, 10), "the first day of the joint insert is dropped, the second one is stored"
    assert [_close(settings, hour) for hour in hours] == [True, False, True, True]
    _store(settings, hours[1], again=True, token="id/1/hour/0")
    assert _count(settings) == (20, 10)


def test_a_known_token_is_not_renewed(settings: Settings) -> None:
    """So the next owner waits after a refusal: a late insert may come when the token is forgotten."""
    migrate(settings.clickhouse)
    with connect(settings.clickhouse) as client:
        client.execute(f"ALTER TABLE {TABLE} MODIFY SETTING non_replicated_deduplication_window = 2")
    assert _close(settings, _rows(5))
    _store(settings, _rows(1, hours_later=1), again=False, token="another")
    assert not _close(settings, _rows(5, first=5)), "the token is known, and as old as before"
    _store(settings, _rows(1, hours_later=2), again=False, token="a third one")
    assert _close(settings, _rows(5, first=5)), "it is forgotten"


def test_an_hour_that_another_token_holds_would_be_doubled(settings: Settings) -> None:
    """Therefore own tokens are for a committed state that names no joint insert."""
    migrate(settings.clickhouse)
    _store(settings, _rows(5), again=True)
    _store_jointly(settings, _rows(5))
    assert _count(settings) == (10, 5)
    with _emission(settings) as emission, pytest.raises(AssertionError, match="isn't committed with None"):
        asyncio.run(emission.store(_held(settings, _JOINT), "id/0/hour/7", _rows(5), again=False))


def test_hours_of_a_plain_table_may_be_joined(settings: Settings) -> None:
    """A replica that lags may hide the rows of a joint insert from the next owner; this engine has none."""
    migrate(settings.clickhouse)
    with _emission(settings) as emission:
        assert asyncio.run(emission.may_join(_held(settings)))
