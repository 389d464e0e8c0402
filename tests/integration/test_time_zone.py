"""Replay, retention, backup and recovery on a server whose time zone isn't UTC."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.commands import Chimera, command
from support.events import events
from support.replays import UiEvents, close_hours, differences
from support.session_stats import DAY

from pipeline.config import Settings, env_name, load_settings
from pipeline.devstack.clickhouse import ClickHouseServer
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_ZONE = "Europe/Berlin"
_EVENING = int(datetime(2026, 1, 31, 22, tzinfo=UTC).timestamp()) // 3600
_AT_ONCE = "SETTINGS mutations_sync = 2"
_ZERO = f"ALTER TABLE session_stats UPDATE events_count = 0 WHERE hour < toDateTime({(_EVENING + 2) * 3600}) {_AT_ONCE}"


@pytest.fixture
def chimera(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Chimera]:
    """Commands on the broker of the session and on a ClickHouse in Berlin."""
    del settings
    monkeypatch.setenv("TZ", _ZONE)
    with ClickHouseServer(tmp_path / "clickhouse") as server:
        monkeypatch.setenv(env_name("clickhouse", "port"), str(server.port))
        yield command(capsys, monkeypatch)


def test_days_of_events_are_utc_and_those_of_hours_the_servers(chimera: Chimera) -> None:
    """The hour from 23:00 UTC on is of the next day in Berlin; it is brought in line and recovered all the same."""
    log = UiEvents(load_settings())
    with log.client() as client:
        assert client.execute("SELECT serverTimezone()") == [(_ZONE,)]
    encoder = Encoder(log.family)
    for late in range(3):
        moved = [{**event, "ts": event["ts"] + 1000 * 3600 * (22 + late)} for event in events("ui_events", 40)]
        log.send([encoder.encode(event).value for event in moved], late % 2)
    log.commit()
    close_hours(log, _EVENING + 3)

    filled = chimera("replay", "ui_events", "--execute", "--json")
    assert filled.returncode == 0, filled.stderr
    assert list(filled.facts["session_stats"]) == [str(DAY), str(DAY + timedelta(days=1))]
    with log.client() as client:
        assert differences(log) == 0
        client.execute(_ZERO)
        assert differences(log) > 0
        made = chimera("replay", "ui_events", "--day", str(DAY), "--execute", "--json")
        assert (made.facts["inserted"], differences(log)) == (80, 0)

    assert chimera("backup", "create").returncode == 0
    assert chimera("backup", "verify").returncode == 0
    time.sleep(0.05)
    moment = datetime.now(UTC).isoformat()
    with log.client() as client:
        client.execute(f"ALTER TABLE ui_events DELETE WHERE ts >= '{DAY} 23:00:00' {_AT_ONCE}")
    recovered = chimera("restore", "--to", moment, "--execute", "--json")
    assert recovered.returncode == 0, recovered.stderr
    assert recovered.facts["rows"]["ui_events"] == 120
