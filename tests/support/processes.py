"""The worker as a process of its own: started, watched through its web server and its log, never left behind."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Self, TypeVar

from confluent_kafka import Consumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from pipeline.catalog import Catalog, load_catalog
from pipeline.clickhouse.migrate import migrate
from pipeline.config import Settings, env_name
from pipeline.kafka.client import client_config
from pipeline.kafka.topics import TopicAdmin, plan

T = TypeVar("T")

_COMMAND = (str(Path(sys.executable).with_name("faust")), "-A", "pipeline", "worker")
_PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.05
_WEB_SECONDS = 5.0


def prepare(settings: Settings) -> Catalog:
    """Make topics and tables, as `chimera topics apply` and `chimera migrate` do."""
    catalog = load_catalog(settings)
    admin = TopicAdmin(settings.kafka)
    admin.apply(plan(catalog.topics, admin.read(topic.name for topic in catalog.topics), settings.topics.file))
    migrate(settings.clickhouse)
    return catalog


def lag(settings: Settings, topic: str) -> int:
    """Records of the topic that the worker's group hasn't committed."""
    consumer = Consumer({**client_config(settings.kafka), "group.id": settings.kafka.group_id})
    try:
        numbers = consumer.list_topics(topic).topics[topic].partitions
        committed = consumer.committed([TopicPartition(topic, number) for number in numbers], _PATIENCE_SECONDS)
        ends = [consumer.get_watermark_offsets(partition, _PATIENCE_SECONDS)[1] for partition in committed]
        return sum(end - max(partition.offset, 0) for end, partition in zip(ends, committed, strict=True))
    finally:
        consumer.close()


def eventually(look: Callable[[], T], what: str, seconds: float = _PATIENCE_SECONDS) -> T:
    """What `look` returns as soon as that is true; fails when it doesn't come true in time."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(_POLL_SECONDS)
    return found


class Worker:
    """`faust -A pipeline worker`; leaving the context kills it when it still runs, however the test ended.

    Args:
        environ: all of its environment, as from the fixture of that name.
        log_file: where its output goes; a second worker with the same file goes on in it.
        command: that runs it.
    """

    def __init__(self, environ: Mapping[str, str], log_file: Path, command: Sequence[str] = _COMMAND) -> None:
        self._environ = dict(environ)
        self._command = command
        self._log_file = log_file
        self._began_at = log_file.stat().st_size if log_file.exists() else 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environ, stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self.process.stdin is not None
        self.process.stdin.close()

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process, once started."""
        assert self._process is not None, "not started"
        return self._process

    @property
    def running(self) -> bool:
        """Whether it hasn't ended."""
        return self.process.poll() is None

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log_file.read_bytes()[self._began_at :].decode()

    def lines(self, text: str) -> list[str]:
        """The lines of its log that contain this."""
        return [line for line in self.log.splitlines() if text in line]

    @property
    def ready(self) -> bool:
        """Whether /ready says so; False also when nobody answers."""
        try:
            return self._get("ready") == "ready\n"
        except OSError:
            return False

    @property
    def waiting(self) -> bool:
        """Whether /ready answers that it isn't."""
        return bool(self.why_not_ready)

    @property
    def why_not_ready(self) -> str:
        """What /ready answers when the worker isn't; nothing when it is."""
        try:
            self._get("ready")
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            return error.read().decode()
        return ""

    def metric(self, name: str, **labels: str) -> float:
        """Sum of all samples of a metric with these labels; 0 when there are none."""
        samples = [
            sample for family in text_string_to_metric_families(self._get("metrics")) for sample in family.samples
        ]
        return sum(
            sample.value for sample in samples if sample.name == name and labels.items() <= dict(sample.labels).items()
        )

    def wait_for(self, look: Callable[[], T], what: str, seconds: float = _PATIENCE_SECONDS) -> T:
        """Wait until `look` is true while the worker runs; a failure shows the end of its log."""

        def alive() -> T:
            assert self.running, f"{what}: the worker ended with {self.process.returncode}"
            return look()

        try:
            return eventually(alive, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log[-4000:]}") from None

    def wait_until_consuming(self) -> Self:
        """Wait until it has partitions and says it is ready."""
        self.wait_for(lambda: self.lines("consuming") and self.ready, "consuming")
        return self

    def terminate(self, seconds: float = _PATIENCE_SECONDS) -> int:
        """SIGTERM, and its exit code when it ends in time."""
        self.process.terminate()
        return self.wait(seconds)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.process.kill()
        self.process.wait()

    def wait(self, seconds: float = _PATIENCE_SECONDS) -> int:
        """Its exit code, when it ends by itself in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds:.0f} s\n{self.log[-4000:]}") from None

    def _get(self, page: str) -> str:
        port = self._environ[env_name("worker", "web_port")]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=_WEB_SECONDS) as answer:
            text: str = answer.read().decode()
            return text


def last_word(worker: Worker, exit_code: int) -> str:
    """The one line that says why it ended, with this code."""
    assert worker.wait() == exit_code
    assert "Traceback" not in worker.log
    lines = worker.lines("critical") or worker.log.splitlines()
    assert len(lines) == 1, worker.log
    return lines[0]
