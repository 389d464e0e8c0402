"""The monitor on real servers: with logins that can't write it sees lag, freshness, dead letters and servers away."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

import pytest
from clickhouse_driver import Client
from clickhouse_driver import errors as driver_errors
from confluent_kafka import Producer as KafkaProducer
from support.events import events, settled
from support.monitors import running_monitor
from support.processes import Worker, eventually, prepare

from pipeline.clickhouse.access import load_roles
from pipeline.config import Settings, env_name
from pipeline.devstack import Stack
from pipeline.devstack.clickhouse import ClickHouseServer, users_of
from pipeline.kafka.client import client_config
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
            table = next(each for each in monitor.state()["tables"] if each["name"] == "ui_events")
            assert (table["rows"], table["parts"] > 0) == (50, True)
            assert time.time() - 600 < _time(table["newest_stored"]) < time.time() + 5
            page = monitor.ask("/metrics").decode()
            assert 'chimera_monitor_dead_letters_unsettled{family="ui_events",reason="unframed"} 3.0' in page
            done = _chimera(environ, "top", "--url", f"http://127.0.0.1:{monitor.port}")
            assert done.returncode == 0
            assert "ui_events" in done.stdout
        settle = _chimera(environ, "dlq", "drop", "--topic", "ui_events", "--all", "--execute")
        assert settle.returncode == 0, settle.stderr
        eventually(lambda: monitor.family()["dead_letters"]["unsettled"] == 0, "dropped dead letters are settled")


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("way", ["stop", "pause"])
@pytest.mark.parametrize("server", ["kafka", "clickhouse"])
def test_a_server_that_is_away_is_a_state(
    server: str, way: str, stack: Stack, settings: Settings, environ: dict[str, str]
) -> None:
    """Stopped or frozen, it is away within seconds, with a reason and since when; afterwards all is seen again."""
    prepare(settings)
    with running_monitor(environ) as monitor:
        eventually(lambda: monitor.state().get(server, {}).get("verdict") == "ok", "the server is seen")
        began = time.monotonic()
        getattr(getattr(stack, server), way)()
        gone = eventually(lambda: monitor.state().get(server, {}).get("verdict") == "critical", "it is away")
        seconds = time.monotonic() - began
        print(f"{server} {way}: seen after {seconds:.1f} s")  # noqa: T201 (for docs/operations.md)
        assert gone
        state = monitor.state()
        assert state[server]["reason"]
        assert f"{server}-away" in monitor.troubles()
        assert f'chimera_monitor_up{{server="{server}"}} 0.0' in monitor.ask("/metrics").decode()
        if way == "stop":
            assert _chimera(environ, "status").returncode == 69
            stack.start()
        else:
            getattr(stack, server).resume()
        eventually(lambda: monitor.state().get(server, {}).get("verdict") == "ok", "it is back")
        assert [event["kind"] for event in monitor.state()["events"]].count("back") >= 1


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """A ClickHouse with the users of the roles."""
    roles = load_roles("chimera_metrics", Settings().topics.file)
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse"), users=users_of(roles)) as running:
        yield running


def test_its_clickhouse_login_can_neither_write_nor_read_rows(
    guarded: ClickHouseServer, settings: Settings, environ: dict[str, str]
) -> None:
    """The role is enough for every look, and for nothing else."""
    prepare(settings)
    login = {"port": str(guarded.port), "user": _ROLE, "password": _ROLE, "database": "chimera_metrics"}
    migrated = {env_name("clickhouse", key): value for key, value in (login | {"user": "chimera_admin"}).items()}
    migrated[env_name("clickhouse", "password")] = "chimera_admin"
    assert _chimera(environ | migrated, "migrate").returncode == 0
    with running_monitor(environ | {env_name("clickhouse", key): value for key, value in login.items()}) as monitor:
        state = eventually(lambda: (found := monitor.state())["clickhouse"]["verdict"] == "ok" and found, "looked at")
        assert not [table["name"] for table in state["tables"] if table["missing"]]
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
