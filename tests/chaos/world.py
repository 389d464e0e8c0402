"""A world for faults: its own topics, tables and consumer group, a load, and workers that may be killed."""

import os
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import yaml
from confluent_kafka import Consumer, ConsumerGroupState, TopicPartition
from confluent_kafka.admin import AdminClient
from support.kafka_requests import answer_to, patiently
from support.processes import Worker, beside, eventually, prepare

from chaos.ledger import REFUSED_DURATION, Ledger
from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.config import ENV_PREFIX, ClickHouseSettings, KafkaSettings, Settings, TopicsSettings, env_name
from pipeline.devstack import Stack
from pipeline.devstack.ports import HOST, free_port
from pipeline.kafka.client import client_config

SESSION_SECONDS = 2.0
"""Session timeout: a silent worker loses its partitions after this time."""

_TESTS = Path(__file__).parent.parent
_BATCH = {"max_rows": 60, "linger_seconds": 0.05}
_SETTLE_SECONDS = 240.0  # only a fault that fails waits so long
_SECONDS = 120.0
_WORKER = {
    ("kafka", "session_timeout_seconds"): SESSION_SECONDS,
    ("kafka", "heartbeat_interval_seconds"): 0.3,
    ("clickhouse", "connect_timeout_seconds"): 2,
    ("clickhouse", "query_timeout_seconds"): 20,
    ("worker", "commit_interval_seconds"): 0.2,
    ("worker", "lease_seconds"): 2,
    ("worker", "drain_seconds"): 1,
    ("worker", "retry_backoff_max_seconds"): 0.5,
}


class Load(NamedTuple):
    """Rate of a load."""

    per_second: int
    """Events per second of all families."""
    pause_seconds: float
    """Time between two bursts; the longer it is, the larger and fewer are the micro-batches."""


STEADY = Load(600, 0.05)
"""Load of the long suite: an insert is under way nearly always, also at a random time."""

BURSTS = Load(150, 0.8)
"""Load of the short suite for faults that wait for a point or an insert."""


class World:
    """The servers' objects and the workers of one scenario.

    Leaving the context kills the workers, and deletes topics and database.

    Args:
        stack: running broker and ClickHouse.
        directory: directory for logs.
        seed: seed of the events.
    """

    topic_partitions = 2
    """Partitions per topic."""
    rate = STEADY
    """Rate at which `load` produces."""
    worker_settings: ClassVar[Mapping[tuple[str, str], Any]] = {}
    """Additional settings of the workers."""

    def __init__(self, stack: Stack, directory: Path, seed: int) -> None:
        own = secrets.token_hex(4)
        self.stack = stack
        self._own = own
        self._directory = directory / own
        self._directory.mkdir(parents=True)
        bootstrap_servers, port = self._addresses()
        self.settings = Settings(
            kafka=KafkaSettings(bootstrap_servers=bootstrap_servers, group_id=f"chaos-{own}"),
            clickhouse=ClickHouseSettings(host=HOST, port=port, database=f"chaos_{own}"),
            topics=TopicsSettings(file=self._write_topics(self._directory / "topics.yaml", f"{own}.")),
        )
        self.catalog = prepare(self.settings)
        self._prepare_tables()
        self.ledger = self._make_ledger(seed)
        self._workers = ExitStack()
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.close()
        self._delete()

    @property
    def families(self) -> tuple[Family, ...]:
        """The produced families."""
        return self.catalog.families

    @property
    def partitions(self) -> int:
        """Number of partitions of all consumed topics."""
        return sum(family.topic.partitions for family in self.catalog.families)

    @property
    def members(self) -> int:
        """Number of members of the consumer group; 0 during a rebalance."""
        group = self.settings.kafka.group_id
        admin = AdminClient({**client_config(self.settings.kafka), "log_level": 0})
        described = answer_to(lambda: admin.describe_consumer_groups([group])[group], _SECONDS)
        return len(described.members) if described.state == ConsumerGroupState.STABLE else 0

    def worker(
        self,
        at: str | None = None,
        family: Family | None = None,
        nth: int = 1,
        *,
        freeze: bool = False,
        defect: str | None = None,
        clickhouse_port: int | None = None,
    ) -> Worker:
        """Start a worker that waits for `go` after its imports.

        Args:
            at: point at which it is killed; None for no kill.
            family: family whose passings of the point count.
            nth: number of the passing.
            freeze: freeze the worker (SIGSTOP) instead of killing it.
            defect: defect to give the worker.
            clickhouse_port: port of ClickHouse in the worker's settings.
        """
        options = ["--at", at, "--nth", str(nth)] if at else []
        options += ["--topic", family.topic.name, "--table", family.table] if family else []
        options += ["--freeze"] if freeze else []
        options += ["--defect", defect] if defect else []
        self._started += 1
        command = [sys.executable, "-m", "chaos.victim", *options]
        log = self._directory / f"worker-{self._started}.log"
        return self._workers.enter_context(Worker(self._environ(clickhouse_port), log, command))

    @contextmanager
    def load(self) -> Iterator[None]:
        """Produce events of all families while the context lasts; all are delivered when it ends."""
        over = threading.Event()
        share = max(1, round(self.rate.per_second * self.rate.pause_seconds / len(self.families)))

        def work() -> None:
            while not over.wait(self.rate.pause_seconds):
                for family in self.families:
                    self.ledger.produce(family, share)
            self.ledger.flush()

        with beside(work):
            try:
                yield
            finally:
                over.set()

    def settle(self) -> None:
        """Wait until the workers have processed everything."""
        self.wait_until_committed()

    def wait_until_committed(self) -> None:
        """Wait until the group has committed the end of every partition; the error names the partitions behind."""
        try:
            eventually(lambda: not self.behind(), "committed up to the end", _SETTLE_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}, but for {self.behind()}") from None

    def start_over(self) -> None:
        """Kill all workers, and let a new worker finish their work if it can."""
        self.stack.start()
        self._workers.close()
        go(self.worker())
        with suppress(AssertionError):
            self.settle()

    def behind(self) -> Mapping[tuple[str, int], int]:
        """Return the lag of each partition that is behind."""
        ends = self.ledger.ends
        consumer = Consumer({**client_config(self.settings.kafka), "group.id": self.settings.kafka.group_id})
        try:
            committed = patiently(lambda: consumer.committed([TopicPartition(*at) for at in ends], _SECONDS))
        finally:
            consumer.close()
        lags = {(tp.topic, tp.partition): ends[tp.topic, tp.partition] - max(tp.offset, 0) for tp in committed}
        return {at: lag for at, lag in lags.items() if lag}

    def _addresses(self) -> tuple[str, int]:
        return self.stack.kafka.bootstrap_servers, self.stack.clickhouse.port

    def _make_ledger(self, seed: int) -> Ledger:
        return Ledger(self.settings, self.catalog, seed)

    def _declare(self, document: dict[str, Any]) -> None:
        """Change the topics' declaration: small batches, so that a worker always has many in flight."""
        document["defaults"]["batch"] |= _BATCH
        for topic in document["topics"].values():
            topic["partitions"] = self.topic_partitions

    def _write_topics(self, file: Path, prefix: str) -> Path:
        """Write the project's topics.yaml with prefixed topic names."""
        document = yaml.safe_load((_TESTS.parent / "topics.yaml").read_text(encoding="utf-8"))
        self._declare(document)
        document["topics"] = {f"{prefix}{name}": topic for name, topic in document["topics"].items()}
        file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        return file

    def _environ(self, clickhouse_port: int | None) -> dict[str, str]:
        ours: dict[tuple[str, str], Any] = {
            **_WORKER,
            **self.worker_settings,
            ("kafka", "bootstrap_servers"): self.settings.kafka.bootstrap_servers,
            ("kafka", "group_id"): self.settings.kafka.group_id,
            ("clickhouse", "port"): clickhouse_port or self.settings.clickhouse.native_port,
            ("clickhouse", "database"): self.settings.clickhouse.database,
            ("topics", "file"): self.settings.topics.file,
            ("worker", "web_port"): free_port(),
        }
        # Coverage isn't measured in the many workers of these tests: it would take a quarter of their time.
        left_out = (ENV_PREFIX, "COVERAGE_PROCESS_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        path = os.pathsep.join([str(_TESTS), str(_TESTS.parent)])
        ours_too = {"PYTHONPATH": path, "TMPDIR": str(self._directory)}
        return (
            inherited
            | self.stack.environment
            | ours_too
            | {env_name(*name): str(value) for name, value in ours.items()}
        )

    def _prepare_tables(self) -> None:
        """Keep duplicates of bench_runs visible by preventing merges, and make ClickHouse refuse some deployments."""
        with connect(self.settings.clickhouse) as client:
            client.execute(
                "ALTER TABLE bench_runs MODIFY SETTING max_bytes_to_merge_at_max_space_in_pool = 1,"
                " max_bytes_to_merge_at_min_space_in_pool = 1,"
                " parts_to_delay_insert = 1000000, parts_to_throw_insert = 1000000"
            )
            client.execute(f"ALTER TABLE deployments ADD CONSTRAINT odd CHECK duration_ms != {REFUSED_DURATION}")

    def _delete(self) -> None:
        with connect(self.settings.clickhouse, database="") as client:
            client.execute(f"DROP DATABASE IF EXISTS {self.settings.clickhouse.database} SYNC")
        admin = AdminClient({**client_config(self.settings.kafka), "log_level": 0})
        for topic in self.catalog.topics:
            answer_to(lambda name=topic.name: admin.delete_topics([name])[name], _SECONDS)  # type: ignore[misc]


def go(worker: Worker) -> None:
    """Let a waiting worker run."""
    assert worker.process.stdin is not None
    worker.process.stdin.write(b"\n")
    worker.process.stdin.flush()


def wait_until_frozen(worker: Worker, seconds: float = _SECONDS) -> None:
    """Wait until a worker is frozen (SIGSTOP)."""
    status = Path(f"/proc/{worker.process.pid}/stat")
    eventually(lambda: status.read_text().rpartition(") ")[2][0] == "T", "frozen", seconds)
