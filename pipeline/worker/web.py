"""What the worker serves over HTTP: its metrics, and whether it is ready; nothing else of what Faust has to offer."""

from http import HTTPStatus
from typing import Any

import prometheus_client
from aiohttp import hdrs
from faust.web import Request, Response, View
from faust.web.drivers import aiohttp as driver


class Web(driver.Web):
    """Faust's web server with the app's own pages alone, no tables or statistics; it doesn't say what it is."""

    default_blueprints = ()
    production_blueprints = ()
    debug_blueprints = ()
    optional_blueprints = ()

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self.web_app.on_response_prepare.append(_without_server)


async def _without_server(_request: Any, response: Any) -> None:
    response.headers.pop(hdrs.SERVER, None)


async def ready(web: View, _request: Request) -> Response:
    """200 while records flow, else 503 with the reasons."""
    app: Any = web.app
    if not app.troubles:
        return web.text("ready\n")
    text = "".join(f"not ready: {trouble}\n" for trouble in app.troubles)
    return web.text(text, status=HTTPStatus.SERVICE_UNAVAILABLE)


async def metrics(web: View, _request: Request) -> Response:
    """All metrics, as Prometheus reads them."""
    return web.bytes(prometheus_client.generate_latest(), content_type="text/plain")
