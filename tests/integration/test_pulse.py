"""Inserts without an answer: one that the server works at is waited for, one whose answer is lost is made again."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from clickhouse_driver import Client
from support.containers import ContainerStack
from support.processes import eventually

from pipeline.clickhouse.client import kind_of
from pipeline.clickhouse.pulse import Pulse
from pipeline.clickhouse.sink import Sink
from pipeline.config import ClickHouseSettings, Settings
from pipeline.devstack import Stack
from pipeline.devstack.clickhouse import ClickHouseServer
from pipeline.devstack.ports import HOST
from pipeline.errors import FailureKind
from pipeline.troubles import Troubles

pytestmark = pytest.mark.integration

_ROWS = {"n": np.arange(5, dtype=np.uint32)}
_CHUNK = 65_536
_MOST_ATTEMPTS = 10


@pytest.fixture
def table(client: Client) -> str:
    """A table with a deduplication window."""
    client.execute(
        "CREATE TABLE numbers (n UInt32) ENGINE=MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 100"
    )
    return "numbers"


@contextmanager
def _watched(
    settings: ClickHouseSettings,
    *,
    asked: ClickHouseSettings | None = None,
    pause_seconds: float = 0.2,
    answer_seconds: float = 1.0,
    patience_seconds: float = 0.2,
) -> Iterator[tuple[Sink, Troubles]]:
    """A sink, and a pulse that asks far more often than a worker's."""
    troubles = Troubles()
    pulse = Pulse(
        asked or settings,
        troubles,
        pause_seconds=pause_seconds,
        answer_seconds=answer_seconds,
        patience_seconds=patience_seconds,
    )
    sink = Sink(settings, pulse=pulse)
    pulse.start({})
    try:
        yield sink, troubles
    finally:
        pulse.stop()
        sink.close()


def _count(client: Client) -> int:
    return int(client.execute("SELECT count() FROM numbers")[0][0])


class _Deaf:
    """A proxy before ClickHouse; what the server answers on connections of before `lose` is lost."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._deaf = set[int]()
        self._connections = 0
        self.port = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        starting = asyncio.start_server(self._serve, HOST, 0)
        server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        self.port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def lose(self) -> None:
        """Lose all further answers on the connections of now."""
        self._deaf |= set(range(self._connections))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self._connections = self._connections, self._connections + 1
        answers, requests = await asyncio.open_connection(HOST, self._upstream)
        await asyncio.gather(self._pass(reader, requests, -1), self._pass(answers, writer, number))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while data := await reader.read(_CHUNK):
            if number not in self._deaf:
                writer.write(data)
                await writer.drain()
        writer.close()


def test_an_insert_whose_answer_is_lost_is_given_up_in_seconds(settings: Settings, client: Client, table: str) -> None:
    """It is a failure that is tried again; the next attempt, with the same token, stores the rows once."""
    with _Deaf(settings.clickhouse.native_port) as proxy:
        behind = settings.clickhouse.model_copy(update={"port": proxy.port})
        with _watched(behind) as (sink, _):
            began = time.monotonic()
            with pytest.raises(Exception) as lost:
                sink.insert(table, _ROWS, "token", proxy.lose)
            assert kind_of(lost.value) is FailureKind.RETRY
            assert time.monotonic() - began < settings.clickhouse.query_timeout_seconds / 4
            sink.insert(table, _ROWS, "token")
    assert _count(client) == len(_ROWS["n"])


def test_an_insert_that_the_server_works_at_is_waited_for(settings: Settings, client: Client, table: str) -> None:
    """However often the server is asked for it meanwhile, and it is no trouble."""
    client.execute(f"ALTER TABLE {table} ADD CONSTRAINT slow CHECK sleepEachRow(0.5) = 0")
    # The patience is for a busy machine: a question that comes before the insert would take the insert's id.
    watched = _watched(settings.clickhouse, pause_seconds=0.05, answer_seconds=10.0, patience_seconds=1.0)
    with watched as (sink, troubles):
        began = time.monotonic()
        sink.insert(table, _ROWS, "token")
        assert time.monotonic() - began > 2
        assert troubles.lines == []
    assert _count(client) == len(_ROWS["n"])


def test_an_insert_is_given_up_wrongly_only_for_a_while(
    settings: Settings, client: Client, table: str, tmp_path: Path
) -> None:
    """Behind one address may be two servers of one name; the wrong one knows nothing of the insert.

    Each attempt has more time than the one before; the rows are stored once.
    """
    client.execute(f"ALTER TABLE {table} ADD CONSTRAINT slow CHECK sleepEachRow(0.3) = 0")
    with ClickHouseServer(tmp_path / "other") as other:
        asked = settings.clickhouse.model_copy(update={"port": other.port, "database": "default"})
        with _watched(settings.clickhouse, pause_seconds=0.05, asked=asked) as (sink, _):
            given_up = 0
            while given_up < _MOST_ATTEMPTS:
                try:
                    sink.insert(table, _ROWS, "token")
                    break
                except (OSError, EOFError):
                    given_up += 1
    assert 0 < given_up < _MOST_ATTEMPTS
    assert _count(client) == len(_ROWS["n"])


def test_an_insert_into_a_frozen_server_waits_and_says_so(
    settings: Settings, client: Client, table: str, stack: Stack | ContainerStack
) -> None:
    """The first attempt ends well when the server goes on."""
    with _watched(settings.clickhouse) as (sink, troubles), ThreadPoolExecutor(1) as pool:
        inserting = pool.submit(sink.insert, table, _ROWS, "token", stack.clickhouse.pause)
        where = f"ClickHouse {settings.clickhouse.address} doesn't answer"
        eventually(lambda: any(f"{table}: {where}" in line for line in troubles.lines), "the table's trouble")
        assert any(f"ClickHouse: {where}" in line for line in troubles.lines)
        stack.clickhouse.resume()
        inserting.result()
        eventually(lambda: troubles.lines == [], "no trouble any more")
    assert _count(client) == len(_ROWS["n"])
