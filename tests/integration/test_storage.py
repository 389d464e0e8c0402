"""`chimera storage` on a real server with three volumes: days move, are deleted, and stay exact through all of it."""

import time
import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clickhouse_driver import Client
from support.commands import Chimera, command
from support.events import rows
from support.processes import eventually
from support.replays import UiEvents
from support.session_stats import ALL_CLOSED, broken_day, store_rows
from support.session_stats import DAY as STATS_DAY

from pipeline.clickhouse.client import connect
from pipeline.clickhouse.coordinates import Source
from pipeline.clickhouse.migrate import MIGRATIONS, migrate
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.config import Settings, env_name
from pipeline.rollup.audit import Audit
from pipeline.rollup.repair import repair
from pipeline.rollup.verify import verify as verify_stats

pytestmark = pytest.mark.integration

_DAY = "2026-01-31"
_TIERS = (
    "SELECT partition, disk_name FROM system.parts WHERE table = %(table)s AND database = currentDatabase() AND rows"
)
_ROWS = 10
_TEST_SECONDS = 60.0


@pytest.fixture(autouse=True)
def _one_day() -> None:
    """Wait for midnight if it is near: until the end of a test, a row's age in days stays the same."""
    left = 86_400 - time.time() % 86_400
    if left < _TEST_SECONDS:
        time.sleep(left)


@pytest.fixture
def chimera(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Chimera:
    """Run `chimera storage …` in this process."""
    del settings
    return command(capsys, monkeypatch, "storage")


def _runs(ages: list[int]) -> dict[str, Any]:
    """Rows of watcher_runs, ten for each age in days."""
    ages = [age for age in ages for _ in range(_ROWS)]
    zeros, texts = np.zeros(len(ages), np.int64), [b"valid"] * len(ages)
    return {
        "ts": int(time.time() * 1000) - np.array(ages, np.int64) * 86_400_000,
        "run_id": np.frombuffer(b"".join(uuid.uuid4().bytes for _ in ages), "V16"),
        "hearts_commit": [b"a" * 40] * len(ages),
        "packs_commit": [b"a" * 40] * len(ages),
        "status": texts,
        **dict.fromkeys(("hearts_rows_found", "packs_rows_found", "lag_seconds", "duration_ms"), zeros),
        **Source(uuid.uuid4(), 0).columns(np.arange(len(ages))),
    }


def _tiers(client: Client, table: str = "watcher_runs") -> dict[str, str]:
    return dict(client.execute(f"{_TIERS} AND active", {"table": table}))


def _day(age: int) -> str:
    return str(datetime.now(UTC).date() - timedelta(age))


def test_days_move_and_are_deleted_as_declared(settings: Settings, client: Client, chimera: Chimera) -> None:
    """A plan says what will happen; after it, ingest and server agree about each day, and tokens are still known."""
    columns = _runs([1, 100, 400, 1094, 1095, 1200])
    sink = Sink(settings.clickhouse)
    sink.insert("watcher_runs", columns, "token")
    planned = chimera("plan", "watcher_runs", "--json")
    (facts,) = planned.facts["tables"]
    assert (planned.returncode, facts["deletes"]["rows"]) == (2, 2 * _ROWS)
    assert {tier: amount["rows"] for tier, amount in facts["moves"].items()} == {"warm": _ROWS, "cold": 2 * _ROWS}
    assert _tiers(client) == {_day(age): "default" for age in (1, 100, 400, 1094, 1095, 1200)}
    assert chimera("apply").returncode == 2  # no terminal, no --yes
    assert chimera("apply", "--yes").returncode == 0
    moved = {_day(1): "default", _day(100): "warm", _day(400): "cold", _day(1094): "cold"}
    eventually(lambda: _tiers(client) == moved, "days are moved and deleted")
    assert chimera("plan").returncode == 0
    assert "7 as declared" in chimera("apply").stdout
    expired = sink.in_expired_days("watcher_runs", columns["ts"])
    assert expired.tolist() == [False] * 4 * _ROWS + [True] * 2 * _ROWS
    assert not sink.missing_rows("watcher_runs", "run_id", columns, tried=True).any()
    sink.insert("watcher_runs", {name: values[: 4 * _ROWS] for name, values in columns.items()}, "other")
    sink.insert("watcher_runs", columns, "token")  # dropped by its token, though its parts have moved
    assert client.execute("SELECT count() FROM watcher_runs") == [(8 * _ROWS,)]
    assert _tiers(client) == moved  # old rows go to their volume at once
    sink.close()


def test_without_volumes_days_are_only_deleted(
    settings: Settings, client: Client, chimera: Chimera, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows are gone as with volumes; a later policy with volumes changes the rule."""
    sink = Sink(settings.clickhouse)
    sink.insert("watcher_runs", _runs([1, 400, 1095]), "token")
    sink.close()
    monkeypatch.setenv(env_name("clickhouse", "storage_policy"), "none_such")
    assert "days are only deleted" in chimera("apply", "watcher_runs", "--yes").stdout
    eventually(lambda: _tiers(client) == {_day(1): "default", _day(400): "default"}, "the old day is gone")
    assert "1 as declared" in chimera("apply", "watcher_runs").stdout
    assert chimera("query", "--from-cold", "SELECT 1").returncode == 1
    monkeypatch.delenv(env_name("clickhouse", "storage_policy"))
    chimera("apply", "watcher_runs", "--yes")
    eventually(lambda: _tiers(client) == {_day(1): "default", _day(400): "cold"}, "the day has moved")


def test_a_policy_without_the_volumes_is_refused(
    chimera: Chimera, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names policy and volume."""
    del client
    monkeypatch.setenv(env_name("clickhouse", "storage_policy"), "default")
    refused = chimera("plan")
    assert refused.returncode == 70
    assert "no volume warm" in refused.stderr


def test_a_warm_day_is_rewritten_with_projections(log: UiEvents, replay: Chimera, chimera: Chimera) -> None:
    """A swap, a delete and a fill of a table with tiers, indexes and projections: rows and projections stay exact."""
    log.produce(100)
    with log.client() as client:
        chimera("apply", "--yes")
        replay("--execute")
        assert set(_tiers(client, "ui_events").values()) == {_tier_of_the_day()}
        for name in ("hourly_event_type", "hourly_user_agent"):
            assert chimera("projections", "ui_events", name, "--add").returncode == 0
        client.execute("ALTER TABLE ui_events UPDATE latency_ms = 7 WHERE 1 SETTINGS mutations_sync = 2")
        done = replay("--day", _DAY, "--execute", "--json")
        assert (done.returncode, done.facts["inserted"], log.stored()) == (0, 100, (100, 100))
        assert log.complete(rows(log.settings, "ui_events"))
        assert set(_tiers(client, "ui_events").values()) == {_tier_of_the_day()}
        assert _hourly(client, projected=True) == _hourly(client, projected=False)
        client.execute("DELETE FROM ui_events WHERE _offset < 10")
        assert log.stored() == (80, 80)
        assert _hourly(client, projected=True) == _hourly(client, projected=False)
        replay("--execute")
        assert log.stored() == (100, 100)
        assert _hourly(client, projected=True) == _hourly(client, projected=False)
        assert chimera("projections", "ui_events", "hourly_user_agent", "--drop").returncode == 0


def _tier_of_the_day() -> str:
    age = (datetime.now(UTC).date() - date.fromisoformat(_DAY)).days
    return "default" if age < 90 else "warm" if age < 365 else "cold"


def _hourly(client: Client, *, projected: bool) -> list[tuple[Any, ...]]:
    used = {"force_optimize_projection": 1} if projected else {"optimize_use_projections": 0}
    query = (
        "SELECT event_type, count(), uniq(session_id), round(avg(latency_ms), 6) FROM ui_events "
        "WHERE toStartOfHour(ts) >= '2026-01-01 00:00:00' GROUP BY event_type ORDER BY event_type"
    )
    found: list[tuple[Any, ...]] = client.execute(query, settings=used)
    assert found
    return found


def test_a_warm_day_of_session_stats_is_repaired(settings: Settings, client: Client, chimera: Chimera) -> None:
    """The staging table of the repair has the tiers of the table."""
    store_rows(client, broken_day(client)[:1])
    chimera("apply", "--yes")
    eventually(lambda: set(_tiers(client, TABLE).values()) == {_tier_of_the_day()}, "the day has moved")
    repair(settings.clickhouse, "ui_events", ALL_CLOSED, STATS_DAY)
    assert not verify_stats(Audit(client, "ui_events"), ALL_CLOSED).found.total()


def test_cold_queries_read_the_cold_days_alone(settings: Settings, client: Client, chimera: Chimera) -> None:
    """Parts on other volumes aren't read, also within joins; only a SELECT is taken."""
    chimera("apply", "--yes")
    sink = Sink(settings.clickhouse)
    sink.insert("watcher_runs", _runs([1, 100, 400]), "token")
    sink.close()
    found = chimera(
        "query", "--from-cold", "--json", "SELECT toDate(ts) AS day, count() AS rows FROM watcher_runs GROUP BY day"
    )
    assert found.facts == {"day": _day(400), "rows": _ROWS}
    assert f"cold days of watcher_runs: 1 day, {_ROWS} rows" in found.stderr
    joined = "SELECT count() AS n FROM watcher_runs AS a INNER JOIN watcher_runs AS b ON a.run_id = b.run_id"
    assert chimera("query", "--from-cold", "--json", joined).facts == {"n": _ROWS}
    assert chimera("query", "--from-cold", "TRUNCATE TABLE watcher_runs").returncode == 70
    assert client.execute("SELECT count() FROM watcher_runs") == [(3 * _ROWS,)]


def test_days_are_dropped_detached_and_put_back(settings: Settings, client: Client, chimera: Chimera) -> None:
    """A preview changes nothing; a day that has rows again isn't put back, since they would be there twice."""
    sink = Sink(settings.clickhouse)
    columns = _runs([1, 2, 3])
    sink.insert("watcher_runs", columns, "token")
    sink.close()
    shown = chimera("drop", "watcher_runs", "--to", _day(3))
    assert f"{_day(3)}  hot    {_ROWS} rows" in shown.stdout
    assert set(_tiers(client)) == {_day(1), _day(2), _day(3)}
    assert chimera("drop", "watcher_runs", "--to", _day(3), "--execute").returncode == 0
    assert chimera("detach", "watcher_runs", "--day", _day(2), "--execute").returncode == 0
    assert set(_tiers(client)) == {_day(1)}
    assert [day["day"] for day in chimera("days", "watcher_runs", "--json").facts["detached"]] == [_day(2)]
    client.execute("INSERT INTO watcher_runs (ts) VALUES", [(datetime.now(UTC) - timedelta(2),)])
    refused = chimera("attach", "watcher_runs", "--from", _day(2), "--execute")
    assert (refused.returncode, "expected none" in refused.stderr) == (1, True)
    chimera("drop", "watcher_runs", "--day", _day(2), "--execute")
    assert chimera("attach", "watcher_runs", "--from", _day(2), "--execute").returncode == 0
    assert client.execute("SELECT count(), uniqExact(_offset) FROM watcher_runs") == [(2 * _ROWS, 2 * _ROWS)]
    assert chimera("drop", "watcher_runs").returncode == 2


def test_old_parts_get_the_form_of_today(settings: Settings, chimera: Chimera, tmp_path: Path) -> None:
    """Rows of a table from before the codecs and indexes: they keep rows and coordinates, and take less space."""
    for file in sorted(MIGRATIONS.glob("0*.sql")):
        if int(file.name[:3]) <= 21:
            (tmp_path / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    migrate(settings.clickhouse, tmp_path)
    with connect(settings.clickhouse) as client:
        client.execute(_FILL)
        before = client.execute(_CONTENT)
        migrate(settings.clickhouse)
        assert chimera("recompress").stdout.startswith("ui_events: 2 days, 100,000 rows")
        assert chimera("recompress", "--execute").stdout.endswith("0 days left\n")
        assert client.execute(_CONTENT) == before
        assert "Nothing to do" in chimera("recompress").stderr
        query = "SELECT count() FROM ui_events WHERE session_id = toUUID('00000000-0000-0000-0000-000000000001')"
        assert "session_id_bloom" in str(client.execute(f"EXPLAIN indexes = 1 {query}"))


_FILL = """
INSERT INTO ui_events (ts, session_id, commit_sha, event_type, latency_ms, user_agent, metadata, _offset)
SELECT fromUnixTimestamp64Milli(toInt64(1769817600000 + number * 1000), 'UTC'),
    reinterpretAsUUID(sipHash128(number DIV 50)), repeat('0', 40), 'error', number % 1000, 'Firefox 144', '{}', number
FROM numbers(100000) SETTINGS insert_allow_materialized_columns = 1
"""
_CONTENT = "SELECT count(), sum(cityHash64(*)), sum(_offset) FROM ui_events"
