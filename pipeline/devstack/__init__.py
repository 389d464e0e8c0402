"""A real broker and a real ClickHouse on this machine, without containers: for demos, tests and experiments.

The extra `devstack` is needed only to start a server.
"""

from pipeline.devstack.clickhouse import ClickHouseServer, ClickHouseUser
from pipeline.devstack.kafka import KafkaBroker
from pipeline.devstack.server import Server
from pipeline.devstack.stack import Stack
from pipeline.devstack.worker import WorkerProcess

__all__ = ["ClickHouseServer", "ClickHouseUser", "KafkaBroker", "Server", "Stack", "WorkerProcess"]
