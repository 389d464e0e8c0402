"""A TCP proxy between worker and ClickHouse that disturbs inserts: it loses replies, cuts data, or delays both."""

import asyncio
import enum
import random
import threading
from types import TracebackType
from typing import Self

from pipeline.devstack.ports import HOST

_CHUNK = 65536
_LINGER_SECONDS = 0.2  # wait before a reply is dropped: ClickHouse has then finished the insert
_DELAY_SECONDS = 0.1


class Harm(enum.Enum):
    """A disturbance of an insert."""

    LOSE_REPLY = "reply lost after the insert"
    CUT_DATA = "connection cut within the data"
    DELAY = "data and reply delayed"


class _Stage(enum.Enum):
    """Stage of an insert on a connection."""

    NONE = enum.auto()
    QUERY = enum.auto()
    DATA = enum.auto()
    SENT = enum.auto()


class Proxy:
    """A proxy with its own port and thread; it runs while the context lasts.

    Args:
        upstream: port of ClickHouse's native protocol.
        seed: seed of the delays and cuts.
    """

    def __init__(self, upstream: int, seed: int) -> None:
        self._upstream = upstream
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._harm: Harm | None = None
        self._times = 0
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, HOST, 0, limit=_CHUNK), self._loop
        ).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def harm(self, harm: Harm, times: int = 1) -> None:
        """Disturb the next `times` inserts."""
        self._harm, self._times = harm, times

    @property
    def idle(self) -> bool:
        """True if no insert is left to disturb."""
        return self._times == 0

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection(HOST, self._upstream)
        except OSError:
            writer.transport.abort()
            return
        await _Connection(self, (reader, writer), upstream).run()

    def _take(self, harm: Harm) -> bool:
        """Tell whether to disturb an insert in this way, and count it."""
        if self._harm is not harm or self._times == 0:
            return False
        self._times -= 1
        return True

    def _cut(self, chunk: bytes) -> bytes:
        return chunk[: self._random.randrange(len(chunk))]

    async def _pause(self) -> None:
        await asyncio.sleep(self._random.uniform(0, _DELAY_SECONDS))


class _Connection:
    """A connection of the worker and its counterpart to ClickHouse."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self._stage = _Stage.NONE

    async def run(self) -> None:
        """Forward data in both directions until one side closes."""
        ways = [asyncio.ensure_future(self._requests()), asyncio.ensure_future(self._replies())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for _, writer in (self._client, self._server):
                writer.transport.abort()

    async def _requests(self) -> None:
        proxy = self._proxy
        while chunk := await self._client[0].read(_CHUNK):
            if b"insert_deduplication_token" in chunk:
                self._stage = _Stage.QUERY
            elif self._stage is _Stage.DATA:
                self._stage = _Stage.SENT
                if proxy._take(Harm.CUT_DATA):
                    self._server[1].write(proxy._cut(chunk))
                    await self._server[1].drain()
                    return
                if proxy._take(Harm.DELAY):
                    await proxy._pause()
            self._server[1].write(chunk)
            await self._server[1].drain()

    async def _replies(self) -> None:
        proxy = self._proxy
        while chunk := await self._server[0].read(_CHUNK):
            if self._stage is _Stage.QUERY:
                self._stage = _Stage.DATA
            elif self._stage is _Stage.SENT:
                self._stage = _Stage.NONE
                if proxy._take(Harm.LOSE_REPLY):
                    await asyncio.sleep(_LINGER_SECONDS)
                    return
                if proxy._take(Harm.DELAY):
                    await proxy._pause()
            self._client[1].write(chunk)
            await self._client[1].drain()
