"""The container's health check: exit code and reason for each answer of /live, for worker and monitor."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pipeline.config import env_name
from pipeline.devstack.ports import free_port
from pipeline.worker.health import main


class _Live(BaseHTTPRequestHandler):
    """Answers each path but /live with 404, and /live with the server's status."""

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        self.send_response(self.server.status if self.path == "/live" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the method it replaces)
        """Keep standard error for the health check's reason."""


class _Server(HTTPServer):
    status = 200


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Live) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=["worker", "monitor"])
def part(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name = str(request.param)
    monkeypatch.setenv(env_name("privacy", "hash_key"), "for-tests-only-and-not-a-secret!")
    monkeypatch.setattr(sys, "argv", ["health", *(["monitor"] if name == "monitor" else [])])
    return name


def _ask(part: str, port: int, monkeypatch: pytest.MonkeyPatch, host: str = "127.0.0.1") -> int:
    monkeypatch.setenv(env_name(part, "web_port"), str(port))
    monkeypatch.setenv(env_name(part, "web_host"), host)
    return main()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_part_that_answers_is_healthy(
    host: str, part: str, server: _Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one that listens on all addresses, which is asked on the loopback; nothing is printed."""
    assert _ask(part, server.server_port, monkeypatch, host) == 0
    assert capsys.readouterr() == ("", "")


def test_another_status_is_a_reason(
    part: str, server: _Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names address and status."""
    server.status = 503
    assert _ask(part, server.server_port, monkeypatch) == 1
    expected = f"chimera: 127.0.0.1:{server.server_port}/live: expected status 200, got 503\n"
    assert capsys.readouterr() == ("", expected)


def test_no_answer_is_a_reason(part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the address and the failure."""
    port = free_port()
    assert _ask(part, port, monkeypatch) == 1
    assert capsys.readouterr().err.startswith(f"chimera: 127.0.0.1:{port}/live: ConnectionRefusedError(")


def test_a_wrong_setting_has_its_own_exit_code(
    part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container isn't started anew for it."""
    monkeypatch.setenv(env_name(part, "web_port"), "no port")
    assert main() == 78
    (line,) = capsys.readouterr().err.splitlines()
    assert env_name(part, "web_port") in line
