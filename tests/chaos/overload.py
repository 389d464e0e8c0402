"""Faults of a ClickHouse that is overloaded, or whose administrator kills queries."""

import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

from support.clickhouse_profiles import Account, ProfiledServer
from support.processes import Worker, eventually

from chaos.faults import PATIENCE_SECONDS, Fault, stop, wait_for_rows
from chaos.world import World, go
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.codes import Code
from pipeline.config import ClickHouseSettings
from pipeline.devstack import Stack

_USER = "limited"
_QUERIES = 2  # at once
_MEMORY_BYTES = (
    34_000_000  # of these queries together: enough for one insert into ZSTD columns, often too little for two
)
_WAIT_RATIO = 100  # of a thread's wait for a core to its work: at this ratio, the server refuses every query
_BUSY_THREADS = 32
_BUSY_ROWS = 20_000_000
_REFUSALS = (Code.TOO_MANY_SIMULTANEOUS_QUERIES, Code.MEMORY_LIMIT_EXCEEDED, Code.SERVER_OVERLOADED)
_REFUSALS_OF_A_RUN = 20
_KILLED_INSERTS, _KILLED_LOOKUPS = "query LIKE 'INSERT%'", "query LIKE 'SELECT%'"


class OverloadedWorld(World):
    """A world with a ClickHouse of its own, which refuses a part of the worker's queries for each kind of overload.

    The worker's user may run two queries at once and has little memory. Queries of another user keep all cores busy,
    and the server refuses the worker's queries at random, the more the longer threads wait for a core.
    """

    worker_settings: ClassVar[Mapping[tuple[str, str], Any]] = {("clickhouse", "user"): _USER}

    def __init__(self, stack: Stack, directory: Path, seed: int) -> None:
        limits = {
            "max_concurrent_queries_for_user": _QUERIES,
            "max_memory_usage_for_user": _MEMORY_BYTES,
            "max_untracked_memory": 0,
            "max_os_cpu_wait_time_ratio_to_throw": _WAIT_RATIO,
        }
        self._server = ProfiledServer(directory / f"clickhouse-{seed}", Account(_USER, limits))
        self._server.start()
        try:
            super().__init__(stack, directory, seed)
        except BaseException:
            self._server.stop()
            raise

    def __exit__(self, *arguments: object) -> None:
        try:
            super().__exit__(*arguments)
        finally:
            self._server.stop()

    @property
    def refusals(self) -> int:
        """Number of the server's refusals so far, for any kind of overload."""
        with connect(self.settings.clickhouse) as client:
            counts = dict(client.execute("SELECT code, sum(value) FROM system.errors GROUP BY code"))
        return sum(counts.get(code, 0) for code in _REFUSALS)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keep all cores busy with the queries of another user until the end of the block."""
        over = Event()

        def work() -> None:
            with connect(self.settings.clickhouse) as client:
                while not over.is_set():
                    client.execute(
                        f"SELECT sum(cityHash64(number)) FROM numbers_mt({_BUSY_ROWS})",
                        settings={"max_threads": _BUSY_THREADS, "max_block_size": 8192},
                    )

        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)
            try:
                yield
            finally:
                over.set()
            working.result()

    def _addresses(self) -> tuple[str, int]:
        return self.stack.kafka.bootstrap_servers, self._server.port


def _overload(world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Let the server refuse queries of the worker, many times."""
    assert isinstance(world, OverloadedWorld)
    with world.load(), world.busy():
        go(worker := world.worker())
        worker.wait_until_consuming()
        for _ in range(runs):
            enough = world.refusals + _REFUSALS_OF_A_RUN
            eventually(lambda: world.refusals >= enough, "refused", PATIENCE_SECONDS)  # noqa: B023 (called here)
            time.sleep(rng.uniform(0, 0.3))
            wait_for_rows(worker)
            yield


def _kill_queries(world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Kill (KILL QUERY) inserts of the worker, and look-ups that they lead to."""
    with world.load():
        go(worker := world.worker())
        worker.wait_until_consuming()
        for _ in range(runs):
            time.sleep(rng.uniform(0, 0.1))
            for queries in (_KILLED_INSERTS, _KILLED_LOOKUPS):
                _kill_until_retried(world.settings.clickhouse, queries, worker)
            wait_for_rows(worker)
            yield
        stop(worker)
        go(last := world.worker())
        last.wait_until_consuming()


def _kill_until_retried(settings: ClickHouseSettings, queries: str, worker: Worker) -> None:
    """Kill queries until the worker tries again what has failed."""
    before = worker.metric("chimera_retries_total")
    deadline = time.monotonic() + PATIENCE_SECONDS
    with connect(settings) as client:
        while worker.metric("chimera_retries_total") == before:
            assert time.monotonic() < deadline, f"no query was killed: {queries}"
            for _ in range(20):
                client.execute(f"KILL QUERY WHERE current_database = '{settings.database}' AND {queries} ASYNC")


FAULTS = (
    Fault("queries killed (KILL QUERY)", 20, _kill_queries),
    Fault("server overloaded: 202, 241 and 745", 10, _overload, OverloadedWorld),
)
"""The faults of the long suite."""

SAMPLE = (
    Fault("queries killed", 2, _kill_queries),
    Fault("server overloaded", 1, _overload, OverloadedWorld),
)
"""A few runs for the short suite."""
