"""The monitor as a process of its own."""

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.config import env_name
from pipeline.devstack.ports import free_port
from support.processes import eventually


class Monitor:
    """`chimera monitor` in a process of its own, asked through its web server."""

    def __init__(self, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.port, self.process = port, process

    def ask(self, path: str) -> bytes:
        """Return the content of a page."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def state(self) -> dict[str, Any]:
        """Return /status.json; empty before the web server listens."""
        try:
            state: dict[str, Any] = json.loads(self.ask("/status.json"))
        except OSError:
            assert self.process.poll() is None, "the monitor has ended"
            return {}
        return state

    def family(self, name: str = "ui_events") -> dict[str, Any]:
        """Return the part about a family; empty before the first look."""
        return next((each for each in self.state().get("families", ()) if each["name"] == name), {})

    def troubles(self) -> set[str]:
        """Return the names of what is wrong."""
        return {trouble["id"] for trouble in self.state().get("troubles", ())}


@contextmanager
def running_monitor(environ: Mapping[str, str], *, interval_seconds: float = 1.0) -> Iterator[Monitor]:
    """Run a monitor that looks so often; yield it after its first look, and end it with SIGTERM."""
    port = free_port()
    own = {"web_port": str(port), "interval_seconds": f"{interval_seconds:g}", "answer_seconds": "4"}
    environ = {**environ, **{env_name("monitor", key): value for key, value in own.items()}}
    command = [sys.executable, "-m", "pipeline.cli", "monitor"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            monitor = Monitor(port, process)
            eventually(lambda: monitor.state().get("verdict", "unknown") != "unknown", "the first look")
            yield monitor
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
