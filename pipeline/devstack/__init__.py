"""A real broker and a real ClickHouse on this machine, without containers: for demos, tests and experiments.

The extra `devstack` is needed only to start a server.
"""

from pathlib import Path

from pipeline.devstack.clickhouse import ClickHouseServer, ClickHouseUser
from pipeline.devstack.kafka import KafkaBroker
from pipeline.devstack.monitor import MonitorProcess
from pipeline.devstack.server import Server
from pipeline.devstack.stack import Stack
from pipeline.devstack.worker import WorkerProcess

__all__ = [
    "ClickHouseServer",
    "ClickHouseUser",
    "KafkaBroker",
    "MonitorProcess",
    "Server",
    "Stack",
    "WorkerProcess",
    "demo_processes",
]


def demo_processes(directory: Path) -> tuple[Server, ...]:
    """Return worker and monitor of a demo in this directory; nothing is started, and they may have ended."""
    beside: tuple[Server, ...] = (
        WorkerProcess(directory / "worker", {}),
        MonitorProcess(directory / "monitor", {}),
    )
    return tuple(server for server in beside if server.directory.exists())
