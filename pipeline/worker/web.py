"""The worker's HTTP pages: metrics, readiness and liveness, and none of Faust's own."""

from http import HTTPStatus
from typing import Any

import prometheus_client
from aiohttp import hdrs
from faust.web import Request, Response, View
from faust.web.drivers import aiohttp as driver


class Web(driver.Web):
    """Faust's web server without Faust's pages, and without the header that names its software."""

    default_blueprints = ()
    production_blueprints = ()
    debug_blueprints = ()
    optional_blueprints = ()

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self.web_app.on_response_prepare.append(_without_server)


async def _without_server(_request: Any, response: Any) -> None:
    response.headers.pop(hdrs.SERVER, None)


async def live(web: View, _request: Request) -> Response:
    """Answer 200: the event loop runs. A worker that waits for a server is alive, and a restart wouldn't help it."""
    return web.text("live\n")


async def ready(web: View, _request: Request) -> Response:
    """Answer 200 while records flow, else 503 with the reasons."""
    app: Any = web.app
    if not app.troubles:
        return web.text("ready\n")
    text = "".join(f"not ready: {trouble}\n" for trouble in app.troubles)
    return web.text(text, status=HTTPStatus.SERVICE_UNAVAILABLE)


async def metrics(web: View, _request: Request) -> Response:
    """Answer with all metrics in Prometheus' text format."""
    return web.bytes(prometheus_client.generate_latest(), content_type="text/plain")
