"""The worker as a process, and its web server seen from outside: for the demo, the benchmarks and the tests."""

import http.client
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from pipeline.config import env_name
from pipeline.devstack.server import Server
from pipeline.devstack.web import get
from pipeline.errors import UnavailableError

WORKER_COMMAND = (sys.executable, "-m", "faust", "-A", "pipeline", "worker")
"""Command that runs a worker."""

_ANSWER_SECONDS = 10.0
_END_SECONDS = 2.0
_POLL_SECONDS = 0.1
_END = "# EOF\n"  # the last line of OpenMetrics


class Readiness(NamedTuple):
    """Answer of the worker's /ready."""

    ready: bool
    text: str
    """Body of the answer: one line for each reason if the worker isn't ready."""


class WorkerWeb:
    """The web server of a worker on this machine.

    Args:
        port: as in `CHIMERA_WORKER__WEB_PORT`.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def readiness(self) -> Readiness:
        """Ask /ready.

        Raises:
            OSError, http.client.HTTPException: no answer, or another one than 200, 503 and 410.
        """
        status, body = self._get("/ready")
        if status not in {http.HTTPStatus.OK, http.HTTPStatus.SERVICE_UNAVAILABLE, http.HTTPStatus.GONE}:
            raise http.client.HTTPException(f"status {status}")
        return Readiness(status == http.HTTPStatus.OK, body.decode())

    def samples(self, name: str) -> list[Sample]:
        """Ask /metrics, and return the samples with this name; only their lines are parsed, which are few of many.

        Raises:
            OSError, http.client.HTTPException: no answer, or another one than 200.
        """
        status, body = self._get("/metrics")
        if status != http.HTTPStatus.OK:
            raise http.client.HTTPException(f"status {status}")
        lines = [line for line in body.decode().split("\n") if line.startswith((f"{name}{{", f"{name} "))]
        families = text_string_to_metric_families("\n".join([*lines, _END]))  # type: ignore[no-untyped-call]
        return [sample for family in families for sample in family.samples]

    def _get(self, path: str) -> tuple[int, bytes]:
        """Status and body of an answer."""
        return get(self._port, path, seconds=_ANSWER_SECONDS)


class WorkerProcess(Server):
    """`faust -A pipeline worker`; the worker answers once records flow.

    Args:
        directory: of the worker's log.
        environment: all environment variables of the worker, but for the port of its web server.
        port: of the web server; the last one used in the directory, or a free one, when None.
    """

    name: ClassVar[str] = "worker"
    usual_ports: ClassVar[Mapping[str, int]] = {"port": 6066}

    def __init__(self, directory: Path, environment: Mapping[str, str], *, port: int | None = None) -> None:
        super().__init__(directory, {"port": port}, usual_ports=False)
        self._environment = {**environment, env_name("worker", "web_port"): str(self.port)}
        self._web = WorkerWeb(self.port)

    @property
    def log_file(self) -> Path:
        """The worker's log, which is its standard error."""
        return self.output_file

    def samples(self, metric: str) -> dict[tuple[str, ...], float]:
        """Values of a metric by the values of its labels, in order of the labels' names.

        Raises:
            UnavailableError: the worker has ended, or doesn't give its metrics; says which.
        """
        try:
            samples = self._web.samples(metric)
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(str(error) or type(error).__name__) from None
        return {tuple(value for _, value in sorted(sample.labels.items())): sample.value for sample in samples}

    def _prepare(self) -> list[str]:
        return list(WORKER_COMMAND)

    def _answers(self) -> bool:
        try:
            return self._web.readiness().ready
        except (OSError, http.client.HTTPException):
            return False

    def _failure(self, reason: str) -> UnavailableError:
        deadline = time.monotonic() + _END_SECONDS
        while self.running and time.monotonic() < deadline:  # connections break a moment before the process is gone
            time.sleep(_POLL_SECONDS)
        problem = f"port {self.port} doesn't give metrics: {reason}" if self.running else "ended"
        return UnavailableError(f"{self.name} {problem}; {self._hint()}")
