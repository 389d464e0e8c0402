"""Servers, worker and load of a replay check, and the oracle that counts rows by coordinates."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Self

from confluent_kafka import Producer
from support.processes import Worker, eventually, lag, prepare

from pipeline.clickhouse.client import connect
from pipeline.config import env_name, load_settings
from pipeline.devstack import Stack
from pipeline.devstack.ports import free_port
from pipeline.devstack.process import spawn
from pipeline.kafka.client import client_config
from pipeline.kafka.offsets import TopicReader
from pipeline.producer.encode import Encoder
from pipeline.producer.sample import sample

_DAYS = 4
_TICK_SECONDS = 0.05
_PATIENCE_SECONDS = 900.0


class World:
    """A broker, a ClickHouse and a worker of the check's own, in one directory.

    Args:
        directory: for data and logs.
        variety: number of different events; they are sent again and again, and each record is one of its own.
    """

    def __init__(self, directory: Path, variety: int) -> None:
        self._directory = directory
        self._stack = Stack(directory / "stack")
        self._variety = variety
        self.worker: Worker | None = None

    def __enter__(self) -> Self:
        self._stack.start()
        self._environ = {**os.environ, **self._stack.environment, env_name("worker", "web_port"): str(free_port())}
        os.environ.update(self._environ)
        self.settings = load_settings()
        self.family = prepare(self.settings).family("ui_events")
        self._producer = Producer({**client_config(self.settings.kafka), "linger.ms": 20, "compression.type": "lz4"})
        self._values, self._today = self._encoded()
        return self

    def __exit__(self, *_: object) -> None:
        if self.worker is not None:
            self.worker.__exit__()
        del self._producer  # or its threads look for the broker
        self._stack.stop()

    def _encoded(self) -> tuple[list[bytes], list[bytes]]:
        """Return the values of events of some days, and those of the last day."""
        start = datetime.now(UTC) - timedelta(days=_DAYS - 1)
        events = [
            event
            for _, event in sample(
                self._variety, seed=1, start=start, hours=24 * (_DAYS - 1), families=[self.family.name]
            )
        ]
        encoder = Encoder(self.family)
        values = [encoder.encode(event).value for event in events]
        last = max(event["ts"] for event in events) // 86_400_000
        self.day: date = date(1970, 1, 1) + timedelta(days=last)
        return values, [value for event, value in zip(events, values, strict=True) if event["ts"] // 86_400_000 == last]

    def produce(self, count: int) -> None:
        """Send events to all partitions, in the order of their times."""
        self._send(self._values[number * len(self._values) // count] for number in range(count))
        self._producer.flush()

    def _send(self, values: Iterable[bytes]) -> None:
        for value in values:
            while True:
                try:
                    self._producer.produce(self.family.topic.name, value)
                    break
                except BufferError:
                    self._producer.poll(0.1)
            self._producer.poll(0)

    @contextmanager
    def load(self, per_second: int) -> Iterator[None]:
        """Send events of today all the time; at the end, wait until the worker has committed all."""
        stopping = threading.Event()

        def send() -> None:
            began, sent = time.monotonic(), 0
            while not stopping.wait(_TICK_SECONDS):
                due = round((time.monotonic() - began) * per_second) - sent
                self._send(islice(cycle(self._today), due))
                sent += due

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()
            self._producer.flush()
            self.await_worker()

    def start_worker(self) -> None:
        """Start a worker; kill the one before, if there is one."""
        if self.worker is not None:
            self.worker.kill()
        self.worker = Worker(self._environ, self._directory / "worker.log").__enter__()

    def await_worker(self) -> None:
        """Wait until the group has committed the whole log."""
        topic = self.family.topic.name
        eventually(lambda: lag(self.settings, topic) == 0, "all committed", _PATIENCE_SECONDS)

    @property
    def ends(self) -> dict[int, int]:
        """End of each partition's log."""
        with TopicReader(self.settings.kafka, self.family.topic.name) as reader:
            return {number: offsets.stop for number, offsets in reader.ranges().items()}

    def query(self, query: str) -> Any:
        """Return the first row of a query."""
        with connect(self.settings.clickhouse) as client:
            rows = client.execute(query)
        return rows[0] if rows else None

    def lost_and_doubled(self, table: str = "ui_events") -> tuple[int, int]:
        """Return the number of records without a row, and of rows too many; no record may be on its way."""
        rows, different = self.query(f"SELECT count(), uniqExact(_partition, _offset) FROM {table}")
        return sum(self.ends.values()) - different, rows - different

    def below(self, ends: dict[int, int]) -> int:
        """Return the number of rows of records below some offsets."""
        some = " OR ".join(f"(_partition = {number} AND _offset < {end})" for number, end in ends.items())
        return int(self.query(f"SELECT count() FROM ui_events WHERE {some}")[0])

    def replay(self, *arguments: str) -> dict[str, Any]:
        """Run `chimera replay ui_events --execute …` to its end, and return its facts."""
        done = subprocess.run(
            [_chimera(), "replay", "ui_events", "--execute", "--no-rollup", "--json", *arguments],
            env=self._environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    def killed_replay(self, *arguments: str, begun: Callable[[], bool] = lambda: True, seconds: float) -> bool:
        """Start a replay, and kill it (-9) within `seconds` after it has begun; False if it had ended by then."""
        log = self._directory / "killed.log"
        running = spawn([_chimera(), "replay", "ui_events", "--execute", "--no-rollup", *arguments], self._environ, log)
        eventually(lambda: begun() or running.poll() is not None, "begun", _PATIENCE_SECONDS)
        time.sleep(random.uniform(0, seconds))
        running.kill()
        return running.wait() == -signal.SIGKILL


def _chimera() -> str:
    return str(Path(sys.executable).with_name("chimera"))
