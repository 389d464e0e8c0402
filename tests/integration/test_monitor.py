"""The monitor on real servers: with logins that can't write it sees lag, freshness, dead letters and servers away."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clickhouse_driver import Client
from clickhouse_driver import errors as driver_errors
from confluent_kafka import Producer as KafkaProducer
from pydantic import SecretStr
from support.events import events, settled
from support.monitors import Monitor, running_monitor
from support.processes import Worker, eventually, prepare

from pipeline.clickhouse.access import load_roles
from pipeline.config import Settings, env_name
from pipeline.devstack import Stack
from pipeline.devstack.clickhouse import ClickHouseServer, users_of
from pipeline.kafka.client import client_config
from pipeline.operations.backup.manifest import Manifest
from pipeline.producer.producer import Producer

pytestmark = pytest.mark.integration

_ROLE = "chimera_monitor"
_MOST_SECONDS = 15.0


def _chimera(environ: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_lag_is_seen_without_a_worker_and_gone_with_one(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """Without a commit all records are lag, with an age; a worker stores them, and the rejected ones are counted."""
    catalog = prepare(settings)
    family = catalog.family("ui_events")
    with Producer(settings) as producer:
        for event in events("ui_events", 50):
            producer.send("ui_events", event)
    careless = KafkaProducer(client_config(settings.kafka))
    for _ in range(3):
        careless.produce(family.topic.name, b"neither framing")
    assert careless.flush(30) == 0
    with running_monitor(environ) as monitor:
        eventually(lambda: monitor.family().get("lag_seconds"), "the lag's age")
        seen = monitor.family()
        assert (seen["lag_records"], seen["consumption"], seen["unowned"]) == (53, "stopped", 2)
        assert seen["uncommitted"] >= 1
        assert "no-worker" in monitor.troubles()
        status = _chimera(environ, "status", "--json")
        assert (status.returncode, json.loads(status.stdout)["troubles"][0]["id"]) == (1, "no-worker")
        with Worker(environ, tmp_path / "log") as worker:
            worker.wait_until_consuming()
            settled(worker, settings, family, 53)
            eventually(lambda: monitor.family().get("lag_records") == 0, "no lag")
            letters = eventually(
                lambda: (found := monitor.family()["dead_letters"])["unsettled"] == 3 and found, "three dead letters"
            )
            assert letters["reasons"] == {"unframed": 3}
            table = _table_with(monitor, 50)
            assert table["parts"] > 0
            assert time.time() - 600 < _time(table["newest_stored"]) < time.time() + 5
            page = monitor.ask("/metrics").decode()
            assert 'chimera_monitor_dead_letters_unsettled{family="ui_events",reason="unframed"} 3.0' in page
            done = _chimera(environ, "top", "--url", f"http://127.0.0.1:{monitor.port}")
            assert done.returncode == 0
            assert "ui_events" in done.stdout
        settle = _chimera(environ, "dlq", "drop", "--topic", "ui_events", "--all", "--execute", "--yes")
        assert settle.returncode == 0, settle.stderr
        eventually(lambda: monitor.family()["dead_letters"]["unsettled"] == 0, "dropped dead letters are settled")


def _table_with(monitor: Monitor, rows: int) -> Mapping[str, Any]:
    """Wait for the look that sees so many rows of ui_events; return the table."""

    def look() -> Mapping[str, Any]:
        tables = monitor.state().get("tables", ())
        return next((each for each in tables if (each["name"], each["rows"]) == ("ui_events", rows)), {})

    return eventually(look, f"{rows} rows")


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_server_that_is_away_is_a_state(stack: Stack, settings: Settings, environ: dict[str, str]) -> None:
    """Frozen or stopped, it is away within seconds, with a reason; the other is still seen, and later both are."""
    prepare(settings)
    with running_monitor(environ) as monitor:
        _wait_for(monitor, "ok", *_SERVERS)
        for server in _SERVERS:
            with _timed(monitor, server, "frozen"):
                getattr(stack, server).pause()
            other = next(each for each in _SERVERS if each != server)
            _wait_for(monitor, "ok", other)
            getattr(stack, server).resume()
            _wait_for(monitor, "ok", server)
        with _timed(monitor, "clickhouse", "stopped"):
            stack.clickhouse.stop()
        with _timed(monitor, "kafka", "stopped"):
            stack.kafka.stop()
        assert _chimera(environ, "status").returncode == 69
        stack.start()
        _wait_for(monitor, "ok", *_SERVERS)
        back = [event["text"] for event in monitor.state()["events"] if event["kind"] == "back"]
        assert back.count("ClickHouse answers again") == 2
        # A broker that was frozen for nine seconds is away once more when it knows.
        assert back.count("Kafka answers again") in {2, 3}


_SERVERS = ("kafka", "clickhouse")


def _wait_for(monitor: Monitor, verdict: str, *servers: str) -> None:
    def seen() -> bool:
        state = monitor.state()
        return bool(state) and {state[server]["verdict"] for server in servers} == {verdict}

    eventually(seen, f"{' and '.join(servers)} {verdict}")


@contextmanager
def _timed(monitor: Monitor, server: str, way: str) -> Iterator[None]:
    """Take a server away in the context; the model, the troubles and the metrics say so soon."""
    yield
    began = time.monotonic()
    _wait_for(monitor, "critical", server)
    seconds = time.monotonic() - began
    print(f"{server} {way}: seen after {seconds:.1f} s")  # noqa: T201 (for docs/operations.md)
    assert seconds < _MOST_SECONDS
    assert monitor.state()[server]["reason"]
    assert f"{server}-away" in monitor.troubles()
    assert f'chimera_monitor_up{{server="{server}"}} 0.0' in monitor.ask("/metrics").decode()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """A ClickHouse with the users of the roles."""
    roles = load_roles("chimera_metrics", Settings().topics.file)
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse"), users=users_of(roles)) as running:
        yield running


_ADMIN = {"user": "chimera_admin", "password": SecretStr("chimera_admin")}


def test_its_clickhouse_login_can_neither_write_nor_read_rows(
    guarded: ClickHouseServer, settings: Settings, environ: dict[str, str]
) -> None:
    """The role is enough for every look, also at the backups, and for nothing else."""
    prepare(settings)
    login = {"port": str(guarded.port), "user": _ROLE, "password": _ROLE, "database": "chimera_metrics"}
    migrated = {env_name("clickhouse", key): value for key, value in (login | {"user": "chimera_admin"}).items()}
    migrated[env_name("clickhouse", "password")] = "chimera_admin"
    assert _chimera(environ | migrated, "migrate").returncode == 0
    with running_monitor(environ | {env_name("clickhouse", key): value for key, value in login.items()}) as monitor:
        state = eventually(lambda: (found := monitor.state())["clickhouse"]["verdict"] == "ok" and found, "looked at")
        assert not [table["name"] for table in state["tables"] if table["missing"]]
        backup = eventually(lambda: (found := monitor.state()["backup"])["looked_at"] and found, "no backup yet")
        assert (backup["verdict"], backup["at"], backup["reason"]) == ("unknown", None, None)
        assert not {each for each in monitor.troubles() if each.startswith("backup")}
    manifest = Manifest(settings.clickhouse.model_copy(update=login | _ADMIN | {"port": guarded.port}))
    manifest.ensure()
    long_ago = datetime.now(UTC) - timedelta(hours=3)
    manifest.add("old", "began", {"began_at": long_ago.isoformat(), "whole": True})
    manifest.add("old", "done", {})
    manifest.add("new", "began", {"began_at": datetime.now(UTC).isoformat(), "whole": True})
    manifest.add("new", "failed", {"error": "disk full"})
    with running_monitor(environ | {env_name("clickhouse", key): value for key, value in login.items()}) as monitor:
        eventually(lambda: {"backup-too-old", "backup-failed"} <= monitor.troubles(), "the last backup is old")
        backup = monitor.state()["backup"]
        assert (backup["name"], backup["too_old"], backup["last_failed"]) == ("old", True, True)
        assert 10_800 < backup["age_seconds"] < 11_400
        page = monitor.ask("/metrics").decode()
        assert "chimera_monitor_backup_failed 1.0" in page
        assert "chimera_monitor_backup_age_seconds 10" in page
    with Client("127.0.0.1", port=guarded.port, user=_ROLE, password=_ROLE) as client:
        for sql in (
            "SELECT count() FROM chimera_metrics.ui_events",
            "INSERT INTO chimera_metrics.watcher_runs (status) VALUES ('valid')",
            "DROP TABLE chimera_metrics.ui_events",
            "SYSTEM SHUTDOWN",
        ):
            with pytest.raises(driver_errors.ServerException) as refusal:
                client.execute(sql)
            assert refusal.value.code in {164, 497}
