"""Measurement of one contender in a database of its own.

The clock starts when the contender begins to read, that is, when its consumer group has all partitions. So the time to
start Python, to import and to connect doesn't count for any contender. The clock stops when the table has all rows. The
benchmark asks the broker again and again; the clock starts at the last answer that the group doesn't have them, so that
nothing that a fast contender reads before the next answer is left out.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from clickhouse_driver import Client
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from benchmarks.contenders import Contender
from benchmarks.machine import load_average, others_cpu_seconds
from benchmarks.peers import READY
from benchmarks.process import ContenderError, ContenderProcess, cpu_seconds
from benchmarks.results import Result, Runs
from benchmarks.runtimes import command
from benchmarks.stage import Stage
from benchmarks.workload import Fingerprint, Workload
from pipeline.clickhouse.migrate import migrate
from pipeline.config import ClickHouseSettings, env_name
from pipeline.devstack.ports import HOST, free_port

_ROOT = Path(__file__).parent.parent
_POLL_SECONDS = 0.02
_POLL_SHARE = 0.01  # of the elapsed time: equally exact for slow and fast contenders, and a small load for both
_START_SECONDS = 60.0
_STALL_SECONDS = 60.0
_ADMIN_SECONDS = 10.0

Progress = Callable[[int], object]
"""Called with the number of stored rows."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """Clock and CPU times at one moment, in seconds."""

    seconds: float
    cpu: float
    server_cpu: float
    others_cpu: float


@dataclass(frozen=True, slots=True)
class _Marks:
    """Moments of a run: the process was started, and the contender began to read."""

    started: _Mark
    begun: _Mark


@dataclass(frozen=True, slots=True)
class Bench:
    """Measurements of contenders, one at a time, with one workload."""

    place: Stage
    workload: Workload

    def run(
        self,
        contender: Contender,
        progress: Progress,
        afterwards: Callable[[Client], object] = lambda _: None,
        settle_seconds: float = 0.0,
    ) -> Result:
        """Run a contender until it has stored everything, stop it, and check what it stored.

        Args:
            contender: to run.
            progress: of the contender.
            afterwards: called while the contender still runs and has stored all rows, with a client of its database.
            settle_seconds: time from the last row until memory is measured once more; 0 leaves that out.

        Raises:
            ContenderError: the contender ended, stalled, or stored other rows; the message gives its log's last line.
        """
        load = load_average()
        with self.running(contender) as (process, client, marks):
            self._wait_until_stored(client, process, progress)
            result = self._result(contender, process, marks, load)
            afterwards(client)
            if settle_seconds:
                time.sleep(settle_seconds)
                result = replace(result, later_rss_bytes=process.rss_bytes())
            self._check(client, process)
        self.workload.check_topic()
        return result

    @contextmanager
    def running(self, contender: Contender) -> Iterator[tuple[ContenderProcess, Client, _Marks]]:
        """Start a contender in a new database; the context gives it when it has all partitions.

        The context gives the process, a client of the database, and the counters at the start of the process and at
        the start of the clock. The contender is stopped when the context ends, and the database dropped.
        """
        name = f"bench_{contender.name}_{secrets.token_hex(3)}"  # of the database and of the consumer group
        if contender.worker:
            self.workload.forget_worker()
        environment = {**self.environment(name), **dict(contender.environment)}
        process = ContenderProcess(command(contender), environment, self.place.directory / f"{name}.log")
        with self._database(name) as client, process:
            yield process, client, self._wait_until_reading(contender, name, process)

    @contextmanager
    def _database(self, name: str) -> Iterator[Client]:
        """Create a database with the project's tables; drop it afterwards, and with it what reads into it."""
        settings = ClickHouseSettings(host=HOST, port=self.place.stack.clickhouse.port, database=name)
        migrate(settings)
        client = Client(HOST, port=settings.native_port, database=name)
        try:
            yield client
        finally:
            client.execute(f"DROP DATABASE {name} SYNC")
            client.disconnect()

    def environment(self, name: str) -> Mapping[str, str]:
        """Environment of every contender: the worker's settings, and the topic."""
        return {
            **os.environ,
            **self.place.stack.environment,
            env_name("kafka", "group_id"): name,
            env_name("clickhouse", "database"): name,
            env_name("registry", "url"): str(self.place.settings.registry.url),
            env_name("topics", "file"): str(self.workload.settings.topics.file),
            env_name("worker", "web_port"): str(free_port()),  # the usual one may be taken
            "BENCH_TOPIC": self.workload.topic,
            "PYTHONPATH": str(_ROOT),
            "TMPDIR": str(self.place.directory),
        }

    def _wait_until_reading(self, contender: Contender, group: str, process: ContenderProcess) -> _Marks:
        admin = AdminClient({"bootstrap.servers": self.place.stack.kafka.bootstrap_servers, "log_level": 0})
        started = begun = self._mark(process)
        while begun.seconds < started.seconds + _START_SECONDS:
            process.check()
            mark = self._mark(process)
            if self._assigned(admin, group) if contender.grouped else READY in process.output():
                return _Marks(started, begun)
            begun = mark
            time.sleep(_POLL_SECONDS)
        raise process.failure(f"had no partitions after {_START_SECONDS:.0f} s")

    def _mark(self, process: ContenderProcess) -> _Mark:
        server = psutil.Process(self.place.stack.clickhouse.pid)
        return _Mark(
            time.monotonic(),
            process.cpu_seconds(),
            cpu_seconds(server),
            others_cpu_seconds(),
        )

    def _assigned(self, admin: AdminClient, group: str) -> bool:
        """True if the members of the group have all partitions of the topic."""
        try:
            described = admin.describe_consumer_groups([group])[group].result(_ADMIN_SECONDS)
        except KafkaException:  # no such group yet
            return False
        partitions = [partition for member in described.members for partition in member.assignment.topic_partitions]
        assigned = [partition for partition in partitions if partition.topic == self.workload.topic]
        return len(assigned) == self.workload.partitions

    def _result(self, contender: Contender, process: ContenderProcess, marks: _Marks, load: float) -> Result:
        """Figures from the start of the clock until now."""
        begun, ended = marks.begun, self._mark(process)
        seconds = ended.seconds - begun.seconds
        return Result(
            contender.name,
            rows=self.workload.fingerprint.rows,
            seconds=seconds,
            total_seconds=ended.seconds - marks.started.seconds,
            server_cpu_seconds=ended.server_cpu - begun.server_cpu,
            cpu_seconds=None if contender.in_server else ended.cpu - begun.cpu,
            peak_rss_bytes=None if contender.in_server else process.peak_rss_bytes(),
            load=load,
            other_cores=max(0.0, (ended.others_cpu - begun.others_cpu) / seconds),
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

    def _check(self, client: Client, process: ContenderProcess) -> None:
        if (stored := _fingerprint(client)) != self.workload.fingerprint:
            raise process.failure(f"stored {stored}, expected {self.workload.fingerprint}")


def rounds(benches: Mapping[str, tuple[Bench, Contender]], repeat: int, settle_seconds: float = 0.0) -> dict[str, Runs]:
    """Return the runs of each contender. Contenders alternate, so a slower machine affects all of them alike.

    A contender that fails is left out of the result and of later rounds; the stage's failures have the reason.

    Args:
        benches: contenders by the names of their results, each with its workload.
        repeat: number of rounds.
        settle_seconds: as in `Bench.run`.
    """
    runs: dict[str, list[Result]] = {name: [] for name in benches}
    for number in range(repeat):
        for name, (bench, contender) in benches.items():
            if name not in runs:
                continue
            place, rows = bench.place, bench.workload.fingerprint.rows
            title = f"{name}, {rows:,} events, round {number + 1} of {repeat}"
            try:
                result = bench.run(contender, place.bar(title, rows), settle_seconds=settle_seconds)
            except ContenderError as error:
                del runs[name]
                place.failures.append(f"{title}: {error}")
                place.say(f"{title}: {error}")
            else:
                runs[name].append(result)
                place.say(f"{title}: {_figures(result)}")
    return {name: Runs(tuple(results)) for name, results in runs.items()}


def alternating(bench: Bench, contenders: Sequence[Contender], repeat: int) -> dict[str, Runs]:
    """Return the runs of contenders with one workload, as `rounds` does."""
    return rounds({contender.name: (bench, contender) for contender in contenders}, repeat)


def _figures(result: Result) -> str:
    cpu = "" if result.cpu_us_per_row is None else f"{result.cpu_us_per_row:.2f} µs, "
    return (
        f"{result.rows_per_s:,.0f} rows/s, {cpu}server {result.server_cpu_us_per_row:.2f} µs; "
        f"load {result.load:.1f}, others {result.other_cores:.2f} cores"
    )


def _fingerprint(client: Client) -> Fingerprint:
    sql = "SELECT count(), sum(toUnixTimestamp64Milli(ts)), sum(latency_ms), uniqExact(session_id) FROM ui_events"
    return Fingerprint(*client.execute(sql)[0])
