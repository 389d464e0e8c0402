"""TLS for a server without TLS: a terminator on the loopback interface, with a certificate authority of its own."""

import asyncio
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

import trustme

_HOST = "127.0.0.1"
_CHUNK_BYTES = 65_536


class TlsTerminator:
    """Forwards TLS connections in plain text to a port; runs in a thread while the context lasts.

    Args:
        backend_port: port of the server, on this machine.
        directory: directory for the authority's certificate.
        identity: host name or address in the certificate.
    """

    def __init__(self, backend_port: int, directory: Path, identity: str = _HOST) -> None:
        authority = trustme.CA()
        self.ca_cert = directory / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_cert)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(identity).configure_cert(self._context)
        self._backend_port = backend_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, _HOST, 0, ssl=self._context)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _cancel(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection(_HOST, self._backend_port)
        with suppress(asyncio.CancelledError):
            await asyncio.gather(_pass_on(reader, behind_writer), _pass_on(behind_reader, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()
