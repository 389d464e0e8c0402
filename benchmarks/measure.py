"""Measurement of one contender in a database of its own.

The clock starts when the contender begins to read, that is, when its consumer group has all partitions. So the time to
start Python, to import and to connect doesn't count for any contender. The clock stops when the table has all rows.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from clickhouse_driver import Client
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from benchmarks.contenders import Contender, interpreter
from benchmarks.peers import READY
from benchmarks.process import ContenderProcess, cpu_seconds
from benchmarks.report import Result, median
from benchmarks.stage import Stage
from benchmarks.workload import Fingerprint, Workload
from pipeline.clickhouse.migrate import migrate
from pipeline.config import ClickHouseSettings, env_name
from pipeline.devstack.ports import HOST

_ROOT = Path(__file__).parent.parent
_POLL_SECONDS = 0.02
_POLL_SHARE = 0.01  # of the elapsed time: equally exact for slow and fast contenders, and a small load for both
_START_SECONDS = 60.0
_STALL_SECONDS = 60.0
_ADMIN_SECONDS = 10.0

Progress = Callable[[int], object]
"""Called with the number of stored rows."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Measurements of contenders, one at a time, with one workload."""

    place: Stage
    workload: Workload

    def run(
        self, contender: Contender, progress: Progress, afterwards: Callable[[Client], object] = lambda _: None
    ) -> Result:
        """Run a contender until it has stored everything, stop it, and check what it stored.

        Args:
            contender: to run.
            progress: of the contender.
            afterwards: called while the contender still runs and has stored all rows, with a client of its database.

        Raises:
            ContenderError: the contender ended, stalled, or stored other rows; the message gives its log's last line.
        """
        name = f"bench_{contender.name}_{secrets.token_hex(3)}"  # of the database and of the consumer group
        command = [str(interpreter(contender)), *contender.arguments]
        environment = {**self._environment(name), **dict(contender.environment)}
        process = ContenderProcess(command, environment, self.place.directory / f"{name}.log")
        with self._database(name) as client:
            started = time.monotonic()
            with process:
                self._wait_until_reading(contender, name, process)
                result = self._measure(contender, client, process, started, progress)
                afterwards(client)
            if (stored := _fingerprint(client)) != self.workload.fingerprint:
                raise process.failure(f"stored {stored}, expected {self.workload.fingerprint}")
        return result

    @contextmanager
    def _database(self, name: str) -> Iterator[Client]:
        """Create a database with the project's tables; drop it afterwards."""
        settings = ClickHouseSettings(host=HOST, port=self.place.stack.clickhouse.port, database=name)
        migrate(settings)
        client = Client(HOST, port=settings.native_port, database=name)
        try:
            yield client
            client.execute(f"DROP DATABASE {name} SYNC")
        finally:
            client.disconnect()

    def _environment(self, name: str) -> dict[str, str]:
        """Environment of every contender: the worker's settings, and the topic."""
        return {
            **os.environ,
            **self.place.stack.environment,
            env_name("kafka", "group_id"): name,
            env_name("clickhouse", "database"): name,
            env_name("registry", "url"): str(self.place.settings.registry.url),
            "BENCH_TOPIC": self.workload.topic,
            "PYTHONPATH": str(_ROOT),
            "TMPDIR": str(self.place.directory),
        }

    def _wait_until_reading(self, contender: Contender, group: str, process: ContenderProcess) -> None:
        admin = AdminClient({"bootstrap.servers": self.place.stack.kafka.bootstrap_servers, "log_level": 0})
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            process.check()
            if self._assigned(admin, group) if contender.grouped else READY in process.output():
                return
            time.sleep(_POLL_SECONDS)
        raise process.failure(f"had no partitions after {_START_SECONDS:.0f} s")

    def _assigned(self, admin: AdminClient, group: str) -> bool:
        """True if the members of the group have all partitions of the topic."""
        try:
            described = admin.describe_consumer_groups([group])[group].result(_ADMIN_SECONDS)
        except KafkaException:  # no such group yet
            return False
        partitions = [partition for member in described.members for partition in member.assignment.topic_partitions]
        assigned = [partition for partition in partitions if partition.topic == self.workload.topic]
        return len(assigned) == self.workload.partitions

    def _measure(
        self, contender: Contender, client: Client, process: ContenderProcess, started: float, progress: Progress
    ) -> Result:
        """Measure from the first poll to the last row."""
        server = psutil.Process(self.place.stack.clickhouse.pid)
        begun, cpu_before, server_before = time.monotonic(), process.cpu_seconds(), cpu_seconds(server)
        self._wait_until_stored(client, process, progress)
        ended, cpu_after, server_after = time.monotonic(), process.cpu_seconds(), cpu_seconds(server)
        return Result(
            contender.name,
            rows=self.workload.fingerprint.rows,
            seconds=ended - begun,
            total_seconds=ended - started,
            server_cpu_seconds=server_after - server_before,
            cpu_seconds=None if contender.in_server else cpu_after - cpu_before,
            peak_rss_bytes=None if contender.in_server else process.peak_rss_bytes(),
        )

    def _wait_until_stored(self, client: Client, process: ContenderProcess, progress: Progress) -> None:
        stored, begun = 0, time.monotonic()
        grew = begun
        while stored < self.workload.fingerprint.rows:
            process.check()
            before = stored
            ((stored,),) = client.execute("SELECT count() FROM ui_events")  # cheap: ClickHouse reads only metadata
            progress(stored)
            if stored > before:
                grew = time.monotonic()
            elif time.monotonic() > grew + _STALL_SECONDS:
                raise process.failure(f"stored {stored:,} rows and no more for {_STALL_SECONDS:.0f} s")
            time.sleep(max(_POLL_SECONDS, (time.monotonic() - begun) * _POLL_SHARE))


def rounds(bench: Bench, contenders: Sequence[Contender], repeat: int) -> dict[str, Result]:
    """Return the median run of each contender. Contenders alternate, so a slower machine affects all of them alike."""
    runs: dict[str, list[Result]] = {contender.name: [] for contender in contenders}
    for _ in range(repeat):
        for contender in contenders:
            bar = bench.place.bar(contender.title, bench.workload.fingerprint.rows)
            runs[contender.name].append(bench.run(contender, bar))
    return {name: median(results) for name, results in runs.items()}


def _fingerprint(client: Client) -> Fingerprint:
    sql = "SELECT count(), sum(toUnixTimestamp64Milli(ts)), sum(latency_ms), uniqExact(session_id) FROM ui_events"
    return Fingerprint(*client.execute(sql)[0])
