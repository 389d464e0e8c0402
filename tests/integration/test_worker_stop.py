"""SIGTERM ends the worker within ten seconds and with exit code 0, also while a server is silent."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.containers import ContainerStack
from support.events import events, publish, settled
from support.processes import Worker, eventually, lag, prepare

from pipeline.config import Settings, env_name
from pipeline.devstack import Stack
from pipeline.devstack.ports import free_port
from pipeline.producer.encode import Encoder

pytestmark = [pytest.mark.integration, pytest.mark.cold]  # it bounds the time of a stop

_EVENTS = 300
_STOP_SECONDS = 10.0

Trouble = Callable[[Stack | ContainerStack], None]


def stopped_in_time(worker: Worker) -> int:
    """Stop the worker, check that it took less than ten seconds, and return its exit code."""
    began = time.monotonic()
    code = worker.terminate(_STOP_SECONDS)
    assert time.monotonic() - began < _STOP_SECONDS
    assert "Traceback" not in worker.log
    return code


def connected(worker: Worker, port: int) -> bool:
    """True if the worker has a connection to this port."""
    connections = psutil.Process(worker.process.pid).net_connections()
    return any(each.raddr and each.raddr.port == port for each in connections)


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(lambda stack: stack.kafka.kill(), id="the broker is gone"),
        pytest.param(lambda stack: stack.kafka.pause(), id="the broker is silent"),
        pytest.param(lambda stack: stack.clickhouse.pause(), id="ClickHouse is silent"),
        pytest.param(lambda stack: (stack.kafka.pause(), stack.clickhouse.pause()), id="both are silent"),
    ],
)
def test_a_worker_with_inserts_under_way_stops(
    settings: Settings, environ: dict[str, str], stack: Stack | ContainerStack, tmp_path: Path, trouble: Trouble
) -> None:
    """No server that is gone or silent delays the stop."""
    family = prepare(settings).family("ui_events")
    values = [Encoder(family).encode(event).value for event in events(family.name, _EVENTS)]
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        publish(settings, family.topic.name, values)
        worker.wait_for(lambda: worker.metric("chimera_records_consumed_total") > 0, "records consumed")
        trouble(stack)
        assert stopped_in_time(worker) == 0


def test_a_worker_in_a_rebalance_stops(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """The worker stops just as another one joins; either of them commits the inserted rows."""
    family = prepare(settings).family("ui_events")
    values = [Encoder(family).encode(event).value for event in events(family.name, _EVENTS)]
    second = {**environ, env_name("worker", "web_port"): str(free_port())}
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        publish(settings, family.topic.name, values)
        with Worker(second, tmp_path / "second") as other:
            worker.wait_for(lambda: worker.waiting, "a rebalance")
            assert stopped_in_time(worker) == 0
            other.wait_for(lambda: lag(settings, family.topic.name) == 0, "everything committed")
            assert stopped_in_time(other) == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGINT], ids=lambda number: number.name)
def test_every_signal_that_ends_a_process_drains(
    settings: Settings, environ: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    """The worker commits what it has stored and leaves its group: SIGHUP comes from a terminal that is closed."""
    family = prepare(settings).family("ui_events")
    values = [Encoder(family).encode(event).value for event in events(family.name, _EVENTS)]
    with Worker({**environ, env_name("worker", "commit_interval_seconds"): "60"}, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        publish(settings, family.topic.name, values)
        worker.wait_for(lambda: worker.metric("chimera_rows_inserted_total") == _EVENTS, "stored")
        worker.process.send_signal(number)
        assert worker.wait(_STOP_SECONDS) == 0
        assert lag(settings, family.topic.name) == 0
    assert "Traceback" not in worker.log


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2], ids=lambda number: number.name)
def test_a_stray_signal_stops_nothing(
    settings: Settings,
    environ: dict[str, str],
    stack: Stack | ContainerStack,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    """The worker goes on: no debugger starts, and the log stays one; neither does a worker end that still waits."""
    family = prepare(settings).family("ui_events")
    values = [Encoder(family).encode(event).value for event in events(family.name, _EVENTS)]
    stack.clickhouse.pause()
    with Worker({**environ, env_name("log", "format"): "json"}, tmp_path / "log") as worker:
        eventually(lambda: connected(worker, stack.clickhouse.port), "a connection to ClickHouse")
        worker.process.send_signal(number)
        worker.wait_for(lambda: worker.lines("signal ignored"), "the signal is logged")
        stack.clickhouse.resume()
        worker.wait_until_consuming()
        worker.process.send_signal(number)
        worker.wait_for(lambda: len(worker.lines("signal ignored")) == 2, "the signal is logged again")
        publish(settings, family.topic.name, values)
        settled(worker, settings, family, _EVENTS)
        assert stopped_in_time(worker) == 0
        assert all(line.startswith("{") for line in worker.log.splitlines())
