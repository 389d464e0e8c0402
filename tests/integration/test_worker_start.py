"""A worker that waits for its servers at the start: it says so, on its pages too, and stops when it is told to."""

import http.client
import signal
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import psutil
import pytest
from support.containers import ContainerStack
from support.processes import Worker, eventually, prepare

from pipeline.config import Settings
from pipeline.devstack import Stack
from pipeline.devstack.ports import HOST
from pipeline.devstack.worker import WORKER_COMMAND

pytestmark = [pytest.mark.integration, pytest.mark.cold]

_STOP_SECONDS = 10.0
_ENDING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]


@pytest.fixture
def waiting(
    request: pytest.FixtureRequest,
    settings: Settings,
    environ: dict[str, str],
    stack: Stack | ContainerStack,
    tmp_path: Path,
) -> Iterator[tuple[Worker, int]]:
    """A worker that waits for a silent server before its start, and the port of that server."""
    prepare(settings)
    server = getattr(stack, request.param)
    server.pause()
    with Worker(environ, tmp_path / "log") as worker:
        yield worker, server.port
        server.resume()


@pytest.mark.parametrize("waiting", ["kafka", "clickhouse"], indirect=True)
def test_a_worker_that_waits_is_alive_and_not_ready(
    waiting: tuple[Worker, int], stack: Stack | ContainerStack, settings: Settings
) -> None:
    """`/ready` and the log name the server; the port stays open when it goes on, so that no health check fails."""
    worker, port = waiting
    worker.wait_for(lambda: _named(worker, port), "the silent server is in the log, long before an attempt ends")
    eventually(lambda: f"{HOST}:{port}" in _ready(settings)[1], "the cause is on the page")
    assert _ready(settings)[0] == HTTPStatus.SERVICE_UNAVAILABLE
    assert _ask(settings, "/live") == (HTTPStatus.OK, "live\n")
    assert worker.metric("python_info") == 1
    for server in stack.servers:
        server.resume()
    eventually(lambda: _ask(settings, "/live")[0] == HTTPStatus.OK and worker.ready, "ready")
    assert worker.lines("consuming")


@pytest.mark.parametrize("number", _ENDING, ids=lambda number: number.name)
@pytest.mark.parametrize("waiting", ["clickhouse"], indirect=True)
def test_a_worker_that_waits_for_its_start_stops(waiting: tuple[Worker, int], number: signal.Signals) -> None:
    """With exit code 0, and at once, also while it waits for the answer of a silent server."""
    worker, port = waiting
    eventually(lambda: _connected(worker, port), "a connection to ClickHouse")
    worker.process.send_signal(number)
    assert worker.wait(_STOP_SECONDS) == 0
    assert "Traceback" not in worker.log
    assert worker.lines("stopped")


@pytest.mark.parametrize("waiting", ["clickhouse"], indirect=True)
def test_a_worker_under_nohup_outlives_its_terminal(
    waiting: tuple[Worker, int], environ: dict[str, str], tmp_path: Path
) -> None:
    """A worker that is started with SIGHUP ignored goes on at SIGHUP."""
    waiting[0].kill()
    port = waiting[1]
    with Worker(environ, tmp_path / "nohup", ["nohup", *WORKER_COMMAND]) as worker:
        eventually(lambda: _connected(worker, port), "a connection to ClickHouse")
        worker.process.send_signal(signal.SIGHUP)
        worker.process.send_signal(signal.SIGUSR1)
        worker.wait_for(lambda: worker.lines("signal ignored"), "the later signal is logged")
        assert worker.running


def _named(worker: Worker, port: int) -> bool:
    return any(f"{HOST}:{port}" in line for line in worker.lines("the worker waits for an answer"))


def _ready(settings: Settings) -> tuple[int, str]:
    """Return status and text of /ready; nothing before the worker listens."""
    try:
        return _ask(settings, "/ready")
    except ConnectionRefusedError:
        return 0, ""


def _ask(settings: Settings, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(HOST, settings.worker.web_port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def _connected(worker: Worker, port: int) -> bool:
    connections = psutil.Process(worker.process.pid).net_connections()
    return any(each.raddr and each.raddr.port == port for each in connections)
