"""Two ClickHouse servers with one shard of two replicas, on this machine.

with Replicas(directory) as (first, second):
    ...                                         # `first.port` and `second.port` are those of the native protocol
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from xml.etree import ElementTree as ET

from clickhouse_driver import Client

from pipeline.clickhouse.access import load_roles
from pipeline.config import TopicsSettings
from pipeline.devstack.clickhouse import ClickHouseServer, users_of
from pipeline.devstack.ports import HOST
from support.replication import engine
from support.replication.zookeeper import ZooKeeper

CLUSTER = "main"
"""Name of the cluster, for CHIMERA_CLICKHOUSE__CLUSTER."""

DATABASE = "replicated"
"""Database of the roles' users."""

_ALONE = "alone"
_START = f"DROP TABLE IF EXISTS default.none ON CLUSTER {_ALONE}"


class CompletedServer(ClickHouseServer):
    """A ClickHouse server that can do what the wheel's engine leaves out; see `support.replication.engine`."""

    def _prepare(self) -> list[str]:
        *_, configuration, data = super()._prepare()
        return [sys.executable, str(engine.__file__), configuration, data, str(self.http_port)]


class Replica(CompletedServer):
    """A ClickHouse server that knows the cluster.

    Args:
        directory: for configuration, data and logs.
        number: value of the macro `replica`.
        keeper: the ZooKeeper.
    """

    def __init__(self, directory: Path, number: int, keeper: ZooKeeper) -> None:
        super().__init__(directory, users=users_of(load_roles(DATABASE, TopicsSettings().file)))
        self.number = number
        self.cluster: tuple[Replica, ...] = ()
        self._zookeeper = keeper

    def wait_until_ready(self) -> None:
        """Wait until the server answers and carries out statements ON CLUSTER."""
        super().wait_until_ready()
        self.query(_START)

    def query(self, statement: str, database: str = "") -> Any:
        """Return the rows of a statement."""
        with Client(HOST, port=self.port, database=database) as client:
            return client.execute(statement)

    def _configuration(self) -> ET.Element:
        root = super()._configuration()
        keeper = ET.SubElement(root, "zookeeper")
        _add(ET.SubElement(keeper, "node"), host=HOST, port=self._zookeeper.port)
        _add(keeper, sessions_path=f"/clickhouse/sessions/{self.number}")  # the wheel's servers all have one id
        _add(ET.SubElement(root, "macros"), shard=1, replica=self.number)
        _add(ET.SubElement(root, "distributed_ddl"), path="/clickhouse/ddl")
        clusters = ET.SubElement(root, "remote_servers")
        for name, members in ((CLUSTER, self.cluster), (_ALONE, (self,))):
            shard = ET.SubElement(ET.SubElement(clusters, name), "shard")
            _add(shard, internal_replication="true")
            for member in members:
                _add(ET.SubElement(shard, "replica"), host=HOST, port=member.port)
        return root


class Replicas:
    """The two servers and the ZooKeeper; they run while the context lasts.

    Args:
        directory: for configuration, data and logs.
    """

    def __init__(self, directory: Path) -> None:
        self.keeper = ZooKeeper(directory / "zookeeper")
        self.first, self.second = (Replica(directory / str(number), number, self.keeper) for number in (1, 2))
        for server in self:
            server.cluster = (self.first, self.second)
        self._running = ExitStack()

    def __iter__(self) -> Iterator[Replica]:
        yield from (self.first, self.second)

    def __enter__(self) -> Self:
        try:
            for server in (self.keeper, *self):
                server.launch()
                self._running.callback(server.kill)
            for server in (self.keeper, *self):
                server.wait_until_ready()
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()


def _add(parent: ET.Element, **values: object) -> None:
    for name, value in values.items():
        ET.SubElement(parent, name).text = str(value)
