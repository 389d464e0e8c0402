"""A worker as a process beside the servers, with settings of its own: for the demo and for tests."""

import http.client
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from prometheus_client.parser import text_string_to_metric_families

from pipeline.config import env_name
from pipeline.devstack.ports import HOST
from pipeline.devstack.server import Server
from pipeline.errors import UnavailableError

_ANSWER_SECONDS = 10.0
_END_SECONDS = 2.0
_POLL_SECONDS = 0.1


class WorkerProcess(Server):
    """`faust -A pipeline worker`; it answers once records flow.

    Args:
        directory: of its log.
        environment: its whole environment, but for the port of its web server.
        port: of its web server; the one it had last time, or a free one, when None.
    """

    name: ClassVar[str] = "worker"
    usual_ports: ClassVar[Mapping[str, int]] = {"port": 6066}

    def __init__(self, directory: Path, environment: Mapping[str, str], *, port: int | None = None) -> None:
        super().__init__(directory, {"port": port}, usual_ports=False)
        self._environment = {**environment, env_name("worker", "web_port"): str(self.port)}

    @property
    def log_file(self) -> Path:
        """Its log is its output."""
        return self.output_file

    def samples(self, metric: str) -> dict[tuple[str, ...], float]:
        """Values of one of its metrics, by the values of their labels in order of the labels' names.

        Raises:
            UnavailableError: it has ended, or doesn't give its metrics; says which.
        """
        try:
            status, body = self._get("/metrics")
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(str(error) or type(error).__name__) from None
        if status != http.HTTPStatus.OK:
            raise self._failure(f"status {status}")
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
            if sample.name == metric
        }

    def _prepare(self) -> list[str]:
        return [sys.executable, "-m", "faust", "-A", "pipeline", "worker"]

    def _answers(self) -> bool:
        try:
            return self._get("/ready")[0] == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False

    def _get(self, path: str) -> tuple[int, bytes]:
        """Status and body of what its web server answers."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _failure(self, reason: str) -> UnavailableError:
        deadline = time.monotonic() + _END_SECONDS
        while self.running and time.monotonic() < deadline:  # connections break a moment before the process is gone
            time.sleep(_POLL_SECONDS)
        what = f"port {self.port} doesn't give metrics: {reason}" if self.running else "ended"
        return UnavailableError(f"{self.name} {what}; {self._hint()}")
