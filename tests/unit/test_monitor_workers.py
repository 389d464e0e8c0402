"""The words of workers at /ready, as the monitor sees them: who is asked, what a halt is, and how long it lasts."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from faust.assignor.client_assignment import ClientAssignment, ClientMetadata

from pipeline.kafka.member_data import web_port
from pipeline.kafka.standing import Member
from pipeline.operations.monitor.workers import HALT_SECONDS, WorkerWatch

_HALT = "ClickHouse 127.0.0.1:9000: no right to INSERT"


class _Ready(ThreadingHTTPServer):
    """A web server whose /ready says what a test wants."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answer = (HTTPStatus.OK, "ready\n")
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def member(self) -> Member:
        return Member("faust-1", "faust", "127.0.0.1", frozenset(), int(self.server_address[1]))


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Ready)
        status, text = self.server.answer
        self.send_response(status if self.path == "/ready" else HTTPStatus.NOT_FOUND)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Log no requests."""


@pytest.fixture
def worker() -> Iterator[_Ready]:
    """A worker's web server."""
    server = _Ready()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_halt_is_seen_after_the_worker_has_left_the_group(worker: _Ready) -> None:
    """It is noted once, lasts while nobody answers, and is over when a worker is ready at the address."""
    watch, member = WorkerWatch(None, answer_seconds=5), worker.member
    assert watch.look(0, [member]) == []
    assert (words := watch.words(member)) is not None
    assert words.ready
    worker.answer = (HTTPStatus.GONE, f"halted: {_HALT}\n")
    address = f"127.0.0.1:{member.web_port}"
    assert watch.look(5, []) == [f"the worker at {address} has halted: {_HALT}"]
    worker.answer = (HTTPStatus.NOT_FOUND, "its port is being opened again\n")
    assert watch.look(8, []) == []
    worker.answer = (HTTPStatus.GONE, f"halted: {_HALT}\n")
    assert watch.look(10, []) == []
    assert watch.halts() == {address: _HALT}
    worker.answer = (HTTPStatus.SERVICE_UNAVAILABLE, "not ready: start: no table, 3 s\nnot ready: Kafka: silent, 1 s\n")
    assert watch.look(20, [member]) == []
    assert (words := watch.words(member)) is not None
    assert words.text == "start: no table, 3 s; Kafka: silent, 1 s"
    assert watch.halts(), "it starts again, and may halt again"
    worker.answer = (HTTPStatus.GONE, f"halted: {_HALT}\n")
    assert len(watch.look(25, [])) == 1
    worker.answer = (HTTPStatus.OK, "ready\n")
    watch.look(30, [member])
    assert watch.halts() == {}


def test_a_worker_of_this_machine_may_listen_at_the_loopback_alone(worker: _Ready) -> None:
    """The broker sees another address of the machine; a stranger's address isn't taken for one of its own."""
    watch = WorkerWatch(None, answer_seconds=2.0)
    own, foreign = (replace(worker.member, host=host) for host in ("127.0.0.2", "192.0.2.1"))
    watch.look(0, [own, foreign])
    assert (words := watch.words(own)) is not None
    assert words.ready
    assert watch.words(foreign) is None


def test_a_halt_is_forgotten_after_an_hour(worker: _Ready) -> None:
    """Also the halt of a worker that never comes back; workers that have left aren't asked for ever."""
    worker.answer = (HTTPStatus.GONE, f"halted: {_HALT}\n")
    watch = WorkerWatch(f"127.0.0.1:{worker.member.web_port}", answer_seconds=5)
    watch.look(0, [])
    worker.answer = (HTTPStatus.NOT_FOUND, "another program\n")
    watch.look(HALT_SECONDS, [])
    assert watch.halts()
    watch.look(HALT_SECONDS + 1, [])
    assert watch.halts() == {}


def test_the_port_is_in_the_data_that_faust_puts_beside_a_subscription() -> None:
    """It is read without Faust; what another consumer puts there is no port."""
    data = ClientMetadata(
        assignment=ClientAssignment(actives={}, standbys={}),
        url="http://worker-0:6071",
        changelog_distribution={},
    ).dumps()
    subscription = b"\0\4" + b"\0\0\0\1" + b"\0\3a.b" + len(data).to_bytes(4, "big") + data
    assert web_port(subscription) == 6071
    for other in (b"", subscription[:9], subscription[:17], b"\0\1\0\0\0\0\0\0\0\2[]", b"\0\1\0\0\0\0\xff\xff\xff\xff"):
        assert web_port(other) is None
