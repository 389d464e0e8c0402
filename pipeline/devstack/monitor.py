"""The monitor as a process, for the demo."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pipeline.config import env_name
from pipeline.devstack.ports import HOST
from pipeline.devstack.server import Server
from pipeline.devstack.web import is_ok

_ANSWER_SECONDS = 5.0


class MonitorProcess(Server):
    """`chimera monitor`; it answers at once, also while servers are away.

    Args:
        directory: of its log.
        environment: all environment variables of the monitor, but for the port of its web server.
        port: of the web server; the last one used in the directory, or 6067, or a free one, when None.
    """

    name: ClassVar[str] = "monitor"
    usual_ports: ClassVar[Mapping[str, int]] = {"port": 6067}

    def __init__(self, directory: Path, environment: Mapping[str, str], *, port: int | None = None) -> None:
        super().__init__(directory, {"port": port}, usual_ports=True)
        self._environment = {**environment, env_name("monitor", "web_port"): str(self.port)}

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.port}/"

    @property
    def log_file(self) -> Path:
        """The monitor's log, which is its standard error."""
        return self.output_file

    def _prepare(self) -> list[str]:
        return [sys.executable, "-m", "pipeline.cli", "monitor"]

    def _answers(self) -> bool:
        return is_ok(self.port, "/live", seconds=_ANSWER_SECONDS)
