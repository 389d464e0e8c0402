"""The worker's HTTP pages: metrics, readiness and liveness, and none of Faust's own."""

import socket
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

from aiohttp import hdrs
from aiohttp.web import SockSite
from faust.web import Request, Response, View
from faust.web.drivers import aiohttp as driver

from pipeline import metrics as worker_metrics
from pipeline.config import WorkerSettings, env_name
from pipeline.errors import ChimeraError, ConfigError


class Web(driver.Web):
    """Faust's web server without Faust's pages, and without the header that names its software."""

    default_blueprints = ()
    production_blueprints = ()
    debug_blueprints = ()
    optional_blueprints = ()

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self.web_app.on_response_prepare.append(without_server)

    async def start_server(self) -> None:
        """Serve the sockets that listen since the worker's start."""
        app: Any = self.app
        await self._runner.setup()
        for listener in app.listeners:
            await SockSite(self._runner, listener).start()


def listen(settings: WorkerSettings) -> list[socket.socket]:
    """Return sockets that listen on the web server's port, at every address of its host.

    Raises:
        ConfigError: the port is taken, or the address isn't this machine's.
    """
    listeners: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(settings.web_host, settings.web_port, type=socket.SOCK_STREAM)
        for family, _, _, _, address in found:
            if family == socket.AF_INET6 and not socket.has_dualstack_ipv6() and len(found) > 1:
                continue  # the name has an IPv6 address, but the machine has no IPv6
            listeners.append(socket.create_server(address, family=family))
    except OSError as error:
        for listener in listeners:
            listener.close()
        where, setting = f"{settings.web_host}:{settings.web_port}", env_name("worker", "web_port")
        raise ConfigError(f"{setting}: expected a port to listen on, got {where}: {error.strerror}") from None
    return listeners


async def without_server(_request: Any, response: Any) -> None:
    """Take the header that names the server's software out of a response."""
    response.headers.pop(hdrs.SERVER, None)


class NotReady(NamedTuple):
    """Answer of `/ready` of a worker that isn't ready."""

    status: HTTPStatus
    text: str


def not_ready(lines: Iterable[str]) -> NotReady:
    """Return the troubles, a line each; they may end by themselves."""
    return NotReady(HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"not ready: {line}\n" for line in lines))


def halted(failure: ChimeraError) -> NotReady:
    """Return why the worker ends; its status tells the monitor that it is a halt, and no trouble that may end."""
    return NotReady(HTTPStatus.GONE, f"halted: {failure}\n")


async def live(web: View, _request: Request) -> Response:
    """Answer 200: the event loop runs. A worker that waits for a server is alive, and a restart wouldn't help it."""
    return web.text("live\n")


async def ready(web: View, _request: Request) -> Response:
    """Answer 200 while records flow, else 503 with the reasons, or 410 with that of a halt."""
    app: Any = web.app
    app.note_rebalance()
    lines = app.troubles.lines
    if not lines and app.failure is None:
        return web.text("ready\n")
    reason = not_ready(lines) if app.failure is None else halted(app.failure)
    return web.text(reason.text, status=reason.status)


async def metrics(web: View, _request: Request) -> Response:
    """Answer with all metrics in the form of OpenMetrics."""
    return web.bytes(worker_metrics.exposition(), headers={hdrs.CONTENT_TYPE: worker_metrics.CONTENT_TYPE})
