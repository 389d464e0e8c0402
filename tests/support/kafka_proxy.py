"""A TCP proxy before a Kafka broker that can hold requests of one kind back, or answer them itself."""

import asyncio
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, Self

from pipeline.devstack.ports import HOST

OFFSET_COMMIT, OFFSET_FETCH = 8, 9
"""Kafka's API keys."""

_HEADER = struct.Struct(">hhih")  # API key, version, correlation id, length of the client's id
_CHUNK = 65536

Reply = Callable[[bytes], bytes | None]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Request(NamedTuple):
    """One request of a client."""

    frame: bytes
    api_key: int
    client: str


class KafkaProxy:
    """A proxy with its own port and thread; it runs while the context lasts.

    Args:
        upstream: port of the broker's listener whose advertised port is the proxy's.
        port: the proxy's own port.
    """

    def __init__(self, upstream: int, port: int) -> None:
        self.port = port
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._wanted: tuple[int, str] | None = None
        self._held = threading.Event()
        self._reply: Reply = _pass_on
        self._open = asyncio.Event()

    def __enter__(self) -> Self:
        self._open.set()
        self._thread.start()
        starting = asyncio.start_server(self._serve, HOST, self.port)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def holding(self, api_key: int, client: str = "") -> Iterator[threading.Event]:
        """Hold requests of a kind back while the context lasts.

        Args:
            api_key: Kafka's number of the kind.
            client: beginning of the ids of the clients whose requests are held.

        Yields:
            An event that is set when the first request is held.
        """
        self._held.clear()
        self._wanted = (api_key, client)
        self._loop.call_soon_threadsafe(self._open.clear)
        try:
            yield self._held
        finally:
            self._wanted = None
            self._loop.call_soon_threadsafe(self._open.set)

    @contextmanager
    def answering(self, reply: Reply) -> Iterator[None]:
        """Answer in the broker's place while the context lasts.

        Args:
            reply: gives the answer to a request, both with their lengths; None to ask the broker.
        """
        self._reply = reply
        try:
            yield
        finally:
            self._reply = _pass_on

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker = await asyncio.open_connection(HOST, self._upstream)
        except OSError:
            writer.transport.abort()
            return
        client = (reader, writer)
        ways = [asyncio.ensure_future(self._requests(client, broker)), asyncio.ensure_future(_answers(broker, client))]
        try:
            # A cancelled task would be reported as an error of the server's callback.
            with suppress(asyncio.CancelledError):
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for _, end in (client, broker):
                end.transport.abort()

    async def _requests(self, client: Streams, broker: Streams) -> None:
        while True:
            request = await _read_request(client[0])
            if self._wanted and request.api_key == self._wanted[0] and request.client.startswith(self._wanted[1]):
                self._held.set()
                await self._open.wait()
            reply = self._reply(request.frame)
            end = broker if reply is None else client
            end[1].write(request.frame if reply is None else reply)
            await end[1].drain()


def _pass_on(_request: bytes) -> None:
    """Ask the broker."""


async def _read_request(reader: asyncio.StreamReader) -> _Request:
    size = await reader.readexactly(4)
    body = await reader.readexactly(int.from_bytes(size))
    api_key, _, _, length = _HEADER.unpack_from(body)
    client = body[_HEADER.size : _HEADER.size + max(length, 0)].decode()
    return _Request(size + body, api_key, client)


async def _answers(broker: Streams, client: Streams) -> None:
    while chunk := await broker[0].read(_CHUNK):
        client[1].write(chunk)
        await client[1].drain()
