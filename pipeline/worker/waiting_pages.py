"""The worker's HTTP pages while Faust's web server isn't there: before its start, and after a halt."""

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Self

from aiohttp import hdrs, web

from pipeline import metrics
from pipeline.worker.web import NotReady, without_server

_CLOSE_SECONDS = 1.0  # for answers under way


class WaitingPages:
    """Pages that a thread answers while the context lasts: `/live` with 200, `/ready` with the reason.

    Args:
        listeners: sockets that listen; they stay open after the context.
        reason: gives status and text of `/ready`.
    """

    def __init__(self, listeners: Sequence[socket.socket], reason: Callable[[], NotReady]) -> None:
        self._reason = reason
        self._listeners = listeners
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="waiting-pages")
        app = web.Application()
        app.on_response_prepare.append(without_server)
        app.add_routes([web.get("/live", _live), web.get("/ready", self._ready), web.get("/metrics", _metrics)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        await self._runner.setup()
        for listener in self._listeners:
            await web.SockSite(self._runner, listener.dup()).start()

    async def _ready(self, _request: web.Request) -> web.Response:
        reason = self._reason()
        return web.Response(text=reason.text, status=reason.status)


async def _live(_request: web.Request) -> web.Response:
    return web.Response(text="live\n")


async def _metrics(_request: web.Request) -> web.Response:
    return web.Response(body=metrics.exposition(), headers={hdrs.CONTENT_TYPE: metrics.CONTENT_TYPE})
