"""Tables with a TTL: rows that it has expired are done, for ingest, for the insert check and for the rollup."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import date

import numpy as np
import pytest
from clickhouse_driver import Client
from support.ingesting import ROWS, START, batch_of, dead_letters, ingest, values
from support.processes import prepare

from pipeline.clickhouse.client import connect
from pipeline.clickhouse.coordinates import Source
from pipeline.clickhouse.expired_days import ExpiredDays
from pipeline.clickhouse.repeated_insert import RepeatedInsert
from pipeline.clickhouse.session_stats import COLUMNS, TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column, Mask
from pipeline.config import Settings
from pipeline.rollup.audit import Audit

pytestmark = pytest.mark.integration

_DAY_MS = 86_400_000
_ROWS = 20


@pytest.fixture
def sink(settings: Settings, client: Client) -> Iterator[Sink]:
    del client
    opened = Sink(settings.clickhouse)
    yield opened
    opened.close()


def _runs(days_ago: Sequence[float]) -> dict[str, Column]:
    """Rows of watcher_runs, as old as given."""
    zeros, texts = np.zeros(len(days_ago), np.int64), [b"valid"] * len(days_ago)
    numbers = ("hearts_rows_found", "packs_rows_found", "lag_seconds", "duration_ms")
    return {
        "ts": int(time.time() * 1000) - (np.array(days_ago) * _DAY_MS).astype(np.int64),
        "run_id": np.frombuffer(b"".join(uuid.uuid4().bytes for _ in days_ago), "V16"),
        "hearts_commit": [b"a" * 40] * len(days_ago),
        "packs_commit": [b"a" * 40] * len(days_ago),
        "status": texts,
        **dict.fromkeys(numbers, zeros),
        **Source(uuid.uuid4(), 0).columns(np.arange(len(days_ago))),
    }


def _repeat(sink: Sink, columns: dict[str, Column]) -> int:
    """Insert as a worker does that repeats a micro-batch; return the most rows inserted again in a turn."""
    again = list[int]()

    def find(columns: Mapping[str, Column], *, tried: bool) -> Mask:
        missing = sink.missing_rows("watcher_runs", "run_id", columns, tried=tried)
        again.append(int(missing.sum()))
        return missing

    RepeatedInsert(
        sink, "watcher_runs", columns, "token", find=find, check=lambda: None, look_first=False, look_after=True
    ).attempt()
    return max(again)


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param("toDateTime(ts) + INTERVAL 30 DAY", id="days"),
        pytest.param("ts + toIntervalMonth(1)", id="a month"),
        pytest.param("toDateTime(ts) + INTERVAL 30 DAY DELETE WHERE status = 'valid'", id="with a condition"),
        pytest.param(
            "toDateTime(ts) + INTERVAL 1 DAY RECOMPRESS CODEC(ZSTD(3)), ts + toIntervalDay(30)", id="two rules"
        ),
        pytest.param(
            "toDateTime(ts) + INTERVAL 1 DAY TO DISK 'default', ts + toIntervalDay(30)", id="a rule that moves"
        ),
    ],
)
def test_expired_rows_are_done(client: Client, sink: Sink, rule: str) -> None:
    """A repeated insert whose rows are gone by the TTL ends well, and the other rows are stored once."""
    client.execute("ALTER TABLE watcher_runs MODIFY SETTING storage_policy = 'default'")  # text among numbers
    client.execute(f"ALTER TABLE watcher_runs MODIFY TTL {rule}")
    columns = _runs([20_000, *[1] * _ROWS])  # one event of 1970, as of a time in seconds instead of milliseconds
    for _ in range(2):
        assert _repeat(sink, columns) == 0
        client.execute("OPTIMIZE TABLE watcher_runs FINAL")
    assert client.execute("SELECT count(), min(ts) > '2000-01-01' FROM watcher_runs") == [(_ROWS, 1)]


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param("toDateTime(ts) + INTERVAL 30 DAY", id="days"),
        pytest.param(
            "toDateTime(ts) + INTERVAL 30 DAY GROUP BY ts, run_id SET lag_seconds = max(lag_seconds), "
            "duration_ms = max(duration_ms), toDateTime(ts) + INTERVAL 40 DAY",
            id="aggregated",
        ),
    ],
)
def test_rows_that_are_not_expired_are_still_found_missing(client: Client, sink: Sink, rule: str) -> None:
    """A lost part is inserted again, though the micro-batch has expired rows, of the same day too."""
    client.execute("ALTER TABLE watcher_runs MODIFY SETTING storage_policy = 'default'")
    client.execute(f"ALTER TABLE watcher_runs MODIFY TTL {rule}")
    columns = _runs([20_000, 31, *[29] * _ROWS, 1])
    sink.insert("watcher_runs", columns, "token")
    client.execute("DELETE FROM watcher_runs WHERE 1")  # its tokens stay known
    assert _repeat(sink, columns) == _ROWS + 1
    assert _repeat(sink, columns) == 0
    assert client.execute("SELECT count() FROM watcher_runs") == [(_ROWS + 1,)]


def test_a_rule_that_only_moves_rows_expires_none(client: Client, sink: Sink) -> None:
    """Old rows of a table that compresses or moves them are as present as others."""
    client.execute("ALTER TABLE watcher_runs MODIFY TTL toDateTime(ts) + INTERVAL 1 DAY RECOMPRESS CODEC(ZSTD(3))")
    columns = _runs([50] * _ROWS)
    sink.insert("watcher_runs", columns, "token")
    assert not sink.missing_rows("watcher_runs", "run_id", columns, tried=True).any()
    client.execute("TRUNCATE TABLE watcher_runs")
    assert sink.missing_rows("watcher_runs", "run_id", columns, tried=True).all()


def test_an_expired_hour_is_done(client: Client, sink: Sink) -> None:
    """session_stats' TTL is known to the rollup, whose old hours need no rows any more."""
    now = int(time.time()) // 3600 * 3600
    assert not sink.hour_expired(TABLE, 3600, certainly=True)
    client.execute(f"ALTER TABLE {TABLE} MODIFY TTL hour + INTERVAL 30 DAY")
    assert sink.hour_expired(TABLE, 3600, certainly=True)
    assert not sink.hour_expired(TABLE, now, certainly=False)


@pytest.mark.parametrize("table", ["ui_events", TABLE])
def test_verify_leaves_expired_hours_out(client: Client, sink: Sink, table: str) -> None:
    """An hour whose rows may be gone by either table's TTL is not compared."""
    column = "ts" if table == "ui_events" else "hour"
    hours = np.array([time.time() - 40 * 86_400, time.time()], np.int64) // 3600 * 3600
    values = {name: np.ones(2, np.float32 if kind == "Float32" else np.int64) for name, kind in COLUMNS.items()}
    sink.insert(TABLE, {**values, "hour": hours, "session_id": np.zeros(2, "V16")}, "token")
    audit = Audit(client, "ui_events")
    assert audit.expired(audit.hours(None)) == frozenset()
    known = audit.hours(None)
    client.execute(f"ALTER TABLE {table} MODIFY TTL toDateTime({column}) + INTERVAL 30 DAY")
    assert [hour.begins_at for hour in audit.expired(known)] == [hours[0]]


@pytest.mark.parametrize(
    ("rule", "expired"),
    [
        pytest.param("toDateTime(ts) + INTERVAL 30 DAY", True, id="days"),
        pytest.param("toDateTime(ts) + INTERVAL 30 DAY DELETE WHERE status = 'valid'", False, id="with a condition"),
        pytest.param(
            "toDateTime(ts) + INTERVAL 30 DAY GROUP BY ts, run_id SET lag_seconds = max(lag_seconds)",
            False,
            id="aggregated",
        ),
        pytest.param("toDateTime(ts) + INTERVAL 30 DAY TO DISK 'default'", False, id="moved"),
        pytest.param("toDateTime(ts) + toIntervalSecond(lag_seconds)", False, id="by another column"),
    ],
)
def test_a_day_is_expired_when_all_of_it_is(client: Client, sink: Sink, rule: str, expired: bool) -> None:
    """The day in which the TTL ends isn't, nor are days of which the table may keep rows."""
    client.execute("ALTER TABLE watcher_runs MODIFY SETTING storage_policy = 'default'")
    client.execute(f"ALTER TABLE watcher_runs MODIFY TTL {rule}")
    times = int(time.time() * 1000) - np.array([20_000, 32, 29, 0], np.int64) * _DAY_MS
    assert sink.in_expired_days("watcher_runs", times).tolist() == [expired, expired, False, False]
    assert not sink.in_expired_days("watcher_runs", times[2:]).any()


def test_a_changed_ttl_is_known_after_a_minute(client: Client) -> None:
    """Until then no query is made for a day that is known."""
    now, days = 0.0, ExpiredDays(lambda: now)
    times = int(time.time() * 1000) - np.array([40, 0], np.int64) * _DAY_MS
    assert not days.mask(client, "watcher_runs", times).any()
    client.execute("ALTER TABLE watcher_runs MODIFY TTL toDateTime(ts) + INTERVAL 30 DAY")
    now = 59.0
    assert not days.mask(client, "watcher_runs", times).any()
    now = 61.0
    assert days.mask(client, "watcher_runs", times).tolist() == [True, False]


def test_rows_of_expired_days_are_dead_letters(settings: Settings) -> None:
    """They aren't inserted, their reason says why, and a repeated micro-batch changes nothing."""
    family = prepare(settings).family("ui_events")
    records = values(family)
    with connect(settings.clickhouse) as client:
        kept = (
            round(time.time() - START.timestamp()) - 86_400 - 60
        )  # the first day is past it, and a minute of the next
        client.execute(f"ALTER TABLE ui_events MODIFY TTL toDateTime(ts) + INTERVAL {kept} SECOND")
        client.execute("SYSTEM STOP TTL MERGES ui_events")
        ingest(settings, family, batch_of(family, [*records, b"damaged"]))
        dead = dead_letters(settings, family)
        assert set(dead.values()) == {"expired", "unframed"}
        offsets = "SELECT _offset FROM ui_events ORDER BY _offset"
        stored = client.execute(offsets)
        assert sorted([*dead, *(offset for (offset,) in stored)]) == list(range(ROWS + 1))
        assert client.execute("SELECT min(toDate(ts)) FROM ui_events") == [(date(2026, 3, 2),)]
        ingest(settings, family, batch_of(family, [*records, b"damaged"], again=True))
        assert client.execute(offsets) == stored
    assert dead_letters(settings, family) == dead
