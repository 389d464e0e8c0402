"""A worker as a process beside the servers, with settings of its own: for the demo and for tests."""

import http.client
import subprocess
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

_ANSWER_SECONDS = 5.0
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
        """Values of one of its metrics, by the values of their labels in order of the labels' names."""
        body = self._get("/metrics").decode()
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
            if sample.name == metric
        }

    def leave(self) -> int:
        """Start it where it outlives us, and return its process id once records flow.

        Raises:
            UnavailableError: it ended while starting.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.output_file.open("w") as output:
            process = subprocess.Popen(
                self._prepare(),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        while not self._answers():
            if process.poll() is not None:
                raise UnavailableError(f"{self.name} ended while starting; {self._hint()}")
            time.sleep(_POLL_SECONDS)
        return process.pid

    def _prepare(self) -> list[str]:
        return [sys.executable, "-m", "faust", "-A", "pipeline", "worker"]

    def _answers(self) -> bool:
        try:
            return bool(self._get("/ready"))
        except (OSError, http.client.HTTPException):
            return False

    def _get(self, path: str) -> bytes:
        """The answer of its web server; empty when that isn't 200."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.read() if response.status == http.HTTPStatus.OK else b""
        finally:
            connection.close()
