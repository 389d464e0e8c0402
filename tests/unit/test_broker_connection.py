"""A connection whose transport is closed is lost, and aiokafka opens it again; it doesn't end aiokafka's tasks."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from pipeline.errors import HaltError
from pipeline.transport.adapter.connection import BrokerConnection
from pipeline.transport.adapter.thread import BrokerThread

REQUESTS = [
    pytest.param(lambda connection: connection.send(MetadataRequest([])), id="request"),
    pytest.param(lambda connection: connection._send_sasl_token(b"token"), id="SASL token"),
]


async def _send_after_close(kind: type[AIOKafkaConnection], send: Callable[[Any], Any]) -> AIOKafkaConnection:
    """Send when the transport is closed and the connection hasn't heard of it yet."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    connection: Any = kind("127.0.0.1", server.sockets[0].getsockname()[1])

    async def look_up() -> None:
        connection._versions = {MetadataRequest.API_KEY: (0, 1)}

    connection._do_version_lookup = look_up  # there is no broker
    await connection.connect()
    connection._writer.transport.abort()
    await asyncio.sleep(0)  # uvloop closes the transport, and then wakes up the task that reads
    try:
        with pytest.raises(KafkaConnectionError, match="handler is closed"):
            await send(connection)
    finally:
        server.close()
    return cast("AIOKafkaConnection", connection)


@pytest.mark.parametrize("send", REQUESTS)
def test_a_closed_transport_is_a_lost_connection(send: Callable[[Any], Any]) -> None:
    """An error that aiokafka takes for a passing one; the next request opens another connection."""
    connection = uvloop.run(_send_after_close(BrokerConnection, send))
    assert not connection.connected()


@pytest.mark.parametrize("send", REQUESTS)
def test_aiokafkas_own_connection_raises_what_it_does_not_expect(send: Callable[[Any], Any]) -> None:
    """So the test above tests a real fault; if this one fails, the replacement isn't needed any more."""
    with pytest.raises(RuntimeError):
        uvloop.run(_send_after_close(AIOKafkaConnection, send))


class _Fetcher:
    """Fetcher of aiokafka whose task has ended."""

    def __init__(self, task: asyncio.Future[None]) -> None:
        self.error_future = task


class _Consumer:
    """Consumer of aiokafka, and Faust's consumer around it."""

    def __init__(self, task: asyncio.Future[None]) -> None:
        self._fetcher = _Fetcher(task)


async def _fetch() -> None:
    task: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    failure = KafkaError("Unexpected error during data retrieval")
    failure.__cause__ = ValueError("no such thing")
    task.set_exception(failure)
    await BrokerThread._fetch_records(object.__new__(BrokerThread), cast("Any", _Consumer(task)), set(), 0.0)


def test_a_worker_whose_fetches_have_ended_does_not_stay_silent() -> None:
    """The worker halts and names the cause; its partitions go to another one."""
    with pytest.raises(HaltError, match="aiokafka has stopped fetching: ValueError"):
        asyncio.run(_fetch())
