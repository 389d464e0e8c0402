"""The worker as a process of its own: started, watched through its web server and its log, never left behind."""

import http.client
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from confluent_kafka import Consumer, TopicPartition

from pipeline.catalog import Catalog, load_catalog
from pipeline.config import Settings, env_name
from pipeline.devstack.process import spawn
from pipeline.devstack.worker import WORKER_COMMAND, WorkerWeb
from pipeline.kafka.client import client_config
from pipeline.kafka.topics import TopicAdmin, plan
from support.fork_server import ForkServer, Process
from support.kafka_requests import patiently, watermarks
from support.tables import create_tables

T = TypeVar("T")

# 60 s, because 30 s weren't enough for a worker to start or to take over while other processes kept all cores busy.
# Only a test that fails waits so long. No assertion compares a duration with it: such a test has a bound of its own.
PATIENCE_SECONDS = 120.0
"""Bound of every wait for a condition."""

_POLL_SECONDS = 0.05
_LONGEST_POLL_SECONDS = 0.25
_RESET_SIGNALS = (
    "import os, signal, sys\n"
    "for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):\n"
    "    signal.signal(number, signal.SIG_DFL)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


def in_foreground(command: Sequence[str]) -> list[str]:
    """Wrap a command so that it runs as in a terminal, where SIGINT (Ctrl-C), SIGQUIT and SIGHUP reach it.

    A shell starts background jobs with SIGINT and SIGQUIT ignored, `nohup` ignores SIGHUP, and children inherit that.
    The wrapper restores the default and becomes the command, with the same process id. It needs no `preexec_fn`, which
    isn't safe in a process with threads, and it leaves this process's own handler alone.
    """
    return [sys.executable, "-I", "-S", "-c", _RESET_SIGNALS, *command]


def prepare(settings: Settings) -> Catalog:
    """Create topics and tables, as `chimera topics apply` and `chimera migrate` do."""
    catalog = load_catalog(settings)
    admin = TopicAdmin(settings.kafka)
    admin.apply(plan(catalog.topics, admin.read(topic.name for topic in catalog.topics), settings.topics.file))
    create_tables(settings.clickhouse)
    return catalog


def lag(settings: Settings, topic: str) -> int:
    """Number of records of a topic that the worker's group hasn't committed."""
    consumer = Consumer({**client_config(settings.kafka), "group.id": settings.kafka.group_id})
    try:
        numbers = consumer.list_topics(topic).topics[topic].partitions
        committed = patiently(
            lambda: consumer.committed([TopicPartition(topic, number) for number in numbers], PATIENCE_SECONDS)
        )
        ends = [watermarks(consumer, partition)[1] for partition in committed]
        return sum(end - max(partition.offset, 0) for end, partition in zip(ends, committed, strict=True))
    finally:
        consumer.close()


def eventually(look: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """Call `look` until it returns something true, and return that; fail when that takes too long.

    A look that takes long is made less often, up to four times a second: it costs processors that others need.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if found := look():
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(min(max(_POLL_SECONDS, 2 * (time.monotonic() - began)), _LONGEST_POLL_SECONDS))


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """Run a function in a thread beside the context; wait for it at the end, and raise its failure."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        yield
    running.result()


class Worker:
    """`faust -A pipeline worker`; leaving the context kills the worker if it still runs.

    Args:
        environ: all environment variables of the worker, as the fixture `environ` gives them.
        log_file: file for the output; a second worker with the same file appends to it.
        command: program and arguments.
    """

    fork_server: ClassVar[ForkServer | None] = None
    """Starts the workers that it can start; the tests set it, and nothing else does."""

    def __init__(self, environ: Mapping[str, str], log_file: Path, command: Sequence[str] = WORKER_COMMAND) -> None:
        self._environ = dict(environ)
        self._command = command
        self._log_file = log_file
        self._began_at = log_file.stat().st_size if log_file.exists() else 0
        self._process: Process | None = None
        self._web = WorkerWeb(int(self._environ[env_name("worker", "web_port")]))

    def __enter__(self) -> Self:
        if self.fork_server:
            self._process = self.fork_server.start(self._command, self._environ, self._log_file)
        if self._process is None:
            command = in_foreground(self._command)
            self._process = spawn(command, self._environ, self._log_file, stdin=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self.process.stdin is not None
        self.process.stdin.close()

    @property
    def process(self) -> Process:
        """The process, once started."""
        assert self._process is not None, "not started"
        return self._process

    @property
    def running(self) -> bool:
        """True until the process has ended."""
        return self.process.poll() is None

    @property
    def log(self) -> str:
        """Output so far."""
        return self._log_file.read_bytes()[self._began_at :].decode()

    def lines(self, text: str) -> list[str]:
        """Lines of the log that contain a text."""
        return [line for line in self.log.splitlines() if text in line]

    @property
    def ready(self) -> bool:
        """True if /ready says so; False also without an answer."""
        try:
            return self._web.readiness().ready
        except (OSError, http.client.HTTPException):
            return False

    @property
    def waiting(self) -> bool:
        """True if /ready answers that the worker isn't ready."""
        return bool(self.why_not_ready)

    @property
    def why_not_ready(self) -> str:
        """Reason that /ready gives; empty when the worker is ready."""
        ready, text = self._web.readiness()
        return "" if ready else text

    def metric(self, name: str, **labels: str) -> float:
        """Sum of all samples of a metric with these labels; 0 without samples."""
        samples = self._web.samples(name)
        return sum(sample.value for sample in samples if labels.items() <= dict(sample.labels).items())

    def wait_for(self, look: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
        """Wait until `look` returns something true while the worker runs; a failure shows the end of the log."""

        def alive() -> T:
            assert self.running, f"{what}: the worker ended with {self.process.returncode}"
            return look()

        try:
            return eventually(alive, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log[-4000:]}") from None

    def wait_until_consuming(self) -> Self:
        """Wait until the worker has partitions and is ready."""
        self.wait_for(lambda: self.lines("consuming") and self.ready, "consuming")
        return self

    def terminate(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.terminate()
        return self.wait(seconds)

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Return the exit code of a worker that ends by itself in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds:.0f} s\n{self.log[-4000:]}") from None


def last_word(worker: Worker, exit_code: int) -> str:
    """Return the one line that says why a worker ended with this exit code."""
    assert worker.wait() == exit_code
    assert "Traceback" not in worker.log
    lines = worker.lines("critical") or worker.log.splitlines()
    assert len(lines) == 1, worker.log
    return lines[0]
