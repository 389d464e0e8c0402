"""Refused rows on a ClickHouse that is overloaded: the search for them goes on where it is."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from clickhouse_driver.errors import Error
from support.clickhouse_profiles import Account, ProfiledServer

from pipeline.clickhouse.client import connect, describe, kind_of
from pipeline.clickhouse.refusals import find_refused
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column, Rows
from pipeline.config import ClickHouseSettings, WorkerSettings
from pipeline.retry import Held, Retry, lease_clock

pytestmark = pytest.mark.integration

_DATABASE = "overloaded"
_ROWS, _GUILTY = 1_000, (0, 400, 401, 999)
_BUSY_SECONDS, _FREE_SECONDS = 0.15, 0.01
_MOST_RETRIES = 5_000


@dataclass(frozen=True, slots=True)
class _Partition:
    """A partition that this worker owns."""

    topic: str = "t"
    partition: int = 0
    live: bool = True
    committed_at: float = lease_clock()


class _CountingSink(Sink):
    """A sink that counts its probes, also those that the server refused for overload."""

    probes = 0

    def refusal_code(self, table: str, columns: Mapping[str, Column]) -> int | None:
        self.probes += 1
        assert self.probes < _MOST_RETRIES
        return super().refusal_code(table, columns)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ProfiledServer]:
    with ProfiledServer(tmp_path / "clickhouse", Account("one", {"max_concurrent_queries_for_user": 1})) as own:
        with connect(own.settings_of("default", _DATABASE), database="") as client:
            client.execute(f"CREATE DATABASE {_DATABASE}")
            client.execute(
                f"CREATE TABLE {_DATABASE}.t (n UInt32, CONSTRAINT odd CHECK n NOT IN {_GUILTY}) "
                "ENGINE=MergeTree ORDER BY n"
            )
        yield own


@contextmanager
def _busy(settings: ClickHouseSettings) -> Iterator[None]:
    """Use the one query that the user may run at a time, for most of the time."""
    over = Event()

    def work() -> None:
        with connect(settings) as client:
            while not over.is_set():
                with suppress(Error):  # another query of the user runs now
                    client.execute(f"SELECT sleep({_BUSY_SECONDS})")
                    time.sleep(_FREE_SECONDS)

    working = Thread(target=work)
    working.start()
    try:
        yield
    finally:
        over.set()
        working.join()


def test_refused_rows_are_found_while_most_queries_are_refused(server: ProfiledServer) -> None:
    """A probe that is refused for overload is made again; what earlier probes have found isn't lost."""
    limited = server.settings_of("one", _DATABASE)
    sink, pauses = _CountingSink(limited), WorkerSettings(retry_backoff_seconds=0.01, retry_backoff_max_seconds=0.03)
    numbers, pool = np.arange(_ROWS), ThreadPoolExecutor(1)

    async def renew(_: Held) -> bool:
        return True

    async def search() -> Rows:
        retry = Retry("t", renew, pauses, kind_of=kind_of, describe=describe)

        async def probe(columns: Mapping[str, Column]) -> int | None:
            return await retry.run(_Partition(), partial(sink.refusal_code, "t", columns), pool)

        return await find_refused(probe, "t", Rows({"n": numbers}, numbers, ()))

    try:
        undisturbed = asyncio.run(search())
        needed, sink.probes = sink.probes, 0
        with _busy(limited):
            found = asyncio.run(search())
    finally:
        sink.close()
        pool.shutdown()
    assert tuple(position for position, *_ in found.rejections) == _GUILTY
    assert found.rejections == undisturbed.rejections
    assert sink.probes > 2 * needed, "most probes were to be refused"
