"""The monitor's web server: the page, /metrics, /status.json, /runbook and /live; read-only, and without a login."""

import base64
import hashlib
import re
import socket
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from pipeline.config import env_name
from pipeline.errors import ConfigError
from pipeline.operations.monitor.metrics import CONTENT_TYPE, MonitorMetrics
from pipeline.operations.monitor.runbook import runbook_page
from pipeline.operations.monitor.state import PipelineState
from pipeline.tool_settings import MonitorSettings

_FILES = Path(__file__).with_name("page")
_CLIENT_SECONDS = 10.0  # a client that is slower is let go
_HTML = "text/html; charset=utf-8"


class WebAnswer(NamedTuple):
    """An answer of the web server."""

    status: HTTPStatus
    content_type: str
    body: bytes


class MonitorWeb:
    """Serves the faces of the model.

    Args:
        settings: address to listen on.
        state: gives the model; called from several threads.

    Raises:
        ConfigError: the port is taken, or the address isn't this machine's.
    """

    def __init__(self, settings: MonitorSettings, state: Callable[[], PipelineState]) -> None:
        self._state = state
        self._metrics = MonitorMetrics(state)
        self._pages: dict[str, Callable[[], WebAnswer]] = {
            "/": lambda: _ok(_HTML, page()),
            "/runbook": lambda: _ok(_HTML, runbook_page()),
            "/metrics": lambda: _ok(CONTENT_TYPE, self._metrics.page()),
            "/status.json": lambda: _ok("application/json", orjson.dumps(self._state())),
            "/live": lambda: _ok("text/plain; charset=utf-8", b"live\n"),
        }
        try:
            self._server = _Server((settings.web_host, settings.web_port), _handler(self._pages))
        except OSError as error:
            where, setting = f"{settings.web_host}:{settings.web_port}", env_name("monitor", "web_port")
            raise ConfigError(f"{setting}: expected a port to listen on, got {where}: {error.strerror}") from None

    def serve(self) -> None:
        """Answer requests until `stop` is called from another thread."""
        self._server.serve_forever(poll_interval=0.5)
        self._server.server_close()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without asking for the host's name, as the base class does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)


@cache
def page() -> bytes:
    """Return the page with its style and script inside."""
    html = (_FILES / "index.html").read_text(encoding="utf-8")
    return html.replace("/*style*/", _asset("style.css")).replace("/*script*/", _asset("script.js")).encode()


@cache
def security_policy() -> str:
    """Return the Content-Security-Policy: this page's own style and script, and requests to this server."""
    style, script = (_digest(_asset(name)) for name in ("style.css", "script.js"))
    return (
        f"default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@cache
def _asset(name: str) -> str:
    text = (_FILES / name).read_text(encoding="utf-8")
    assert not re.search(r"</(style|script)", text)
    return text


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _ok(content_type: str, body: bytes) -> WebAnswer:
    return WebAnswer(HTTPStatus.OK, content_type, body)


def _handler(pages: dict[str, Callable[[], WebAnswer]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _CLIENT_SECONDS
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = pages.get(self.path.partition("?")[0])
            self._send(
                found() if found else WebAnswer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"no such page\n")
            )

        def do_HEAD(self) -> None:
            self.do_GET()

        def _send(self, answer: WebAnswer) -> None:
            self.send_response_only(answer.status)  # without the header that names the server's software
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Security-Policy", security_policy())
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        def log_message(self, *_: Any) -> None:
            """Log no requests."""

    return Handler
