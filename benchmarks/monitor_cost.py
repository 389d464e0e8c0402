"""Cost of the monitor: CPU time and memory of its process, by number of partitions.

`python -m benchmarks.monitor_cost [PARTITIONS …]` starts a Kafka and a ClickHouse for each number, without workers and
records, and prints a line for each. The CPU time is the process's own, so other work on the machine changes it little.
"""

import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import orjson
import yaml

from benchmarks.machine import load_average
from benchmarks.process import ContenderError, ContenderProcess
from benchmarks.workload import FAMILY
from pipeline.config import ENV_PREFIX, env_name, project_file
from pipeline.devstack import Stack
from pipeline.devstack.ports import HOST, free_port

_SIZES = (28, 1000)
_SECONDS, _SCRAPE_SECONDS, _PATIENCE_SECONDS = 120.0, 15.0, 600.0
_CHIMERA = (sys.executable, "-m", "pipeline.cli")


def main() -> None:
    """Measure each size."""
    for partitions in map(int, sys.argv[1:] or _SIZES):
        with tempfile.TemporaryDirectory() as name, Stack(Path(name) / "stack") as stack:
            file = Path(name) / "topics.yaml"
            file.write_text(_topics(partitions), encoding="utf-8")
            port = free_port()
            own = {
                **stack.environment,
                env_name("topics", "file"): str(file),
                env_name("monitor", "web_port"): f"{port}",
            }
            environment = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)} | own
            _create(environment)
            sys.stdout.write(_measure(environment, port, Path(name) / "monitor.log") + "\n")
            sys.stdout.flush()


def _topics(partitions: int) -> str:
    """Return topics.yaml with so many partitions of the families' topics in all; ui_events has those to spare."""
    document = yaml.safe_load(project_file("topics.yaml").read_text(encoding="utf-8"))
    families = [topic for topic in document["topics"].values() if "family" in topic]
    usual = document["defaults"]["partitions"]
    others = sum(topic.get("partitions", usual) for topic in families if topic["family"] != FAMILY)
    (largest,) = (topic for topic in families if topic["family"] == FAMILY)
    largest["partitions"] = partitions - others
    return yaml.safe_dump(document, sort_keys=False)


def _create(environment: Mapping[str, str]) -> None:
    """Create topics and tables; a broker with many new partitions may need a second attempt to lead them all."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while subprocess.run(
        [*_CHIMERA, "topics", "apply", "--yes"], check=False, env=environment, stdout=subprocess.DEVNULL
    ).returncode:
        if time.monotonic() > deadline:
            raise ContenderError("topics weren't created in time")
    subprocess.run([*_CHIMERA, "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL)


def _measure(environment: Mapping[str, str], port: int, log: Path) -> str:
    with ContenderProcess([*_CHIMERA, "monitor"], environment, log) as monitor:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not _looked(port):
            monitor.check()
            if time.monotonic() > deadline:
                raise monitor.failure("hasn't seen both servers in time")
            time.sleep(1.0)
        time.sleep(_SCRAPE_SECONDS)  # imports, and what is read once
        began, cpu = time.monotonic(), monitor.cpu_seconds()
        while time.monotonic() - began < _SECONDS:
            time.sleep(_SCRAPE_SECONDS)
            size = len(_ask(port, "/metrics"))
        share = (monitor.cpu_seconds() - cpu) / (time.monotonic() - began)
        families = orjson.loads(_ask(port, "/status.json"))["families"]
        return (
            f"{sum(len(family['partitions']) for family in families):,} partitions: {share:.2%} of a core, "
            f"{monitor.rss_bytes() / 2**20:.0f} MiB, /metrics of {size / 1024:.0f} KiB; load {load_average():.0f}"
        )


def _looked(port: int) -> bool:
    try:
        return bool(orjson.loads(_ask(port, "/status.json"))["verdict"] != "unknown")
    except OSError:
        return False


def _ask(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


if __name__ == "__main__":
    main()
