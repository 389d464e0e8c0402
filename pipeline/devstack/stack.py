"""The development stack: a Kafka broker and a ClickHouse server in one directory."""

from pathlib import Path
from typing import Self

from pipeline.clickhouse.access import load_roles
from pipeline.config import ClickHouseSettings, TopicsSettings, env_name
from pipeline.devstack.clickhouse import ClickHouseServer, users_of
from pipeline.devstack.kafka import KafkaBroker
from pipeline.devstack.ports import HOST
from pipeline.devstack.server import Server

DEVELOPMENT_HASH_KEY = "for-development-only-and-not-a-secret"
"""Public key: hashes that are made with it hide nothing."""


def stack_environment(bootstrap_servers: str, clickhouse_port: int) -> dict[str, str]:
    """Environment variables that point the worker and the tools at a broker and a ClickHouse on this machine."""
    return {
        env_name("kafka", "bootstrap_servers"): bootstrap_servers,
        env_name("clickhouse", "host"): HOST,
        env_name("clickhouse", "port"): str(clickhouse_port),
        env_name("privacy", "hash_key"): DEVELOPMENT_HASH_KEY,
    }


class Stack:
    """A Kafka broker and a ClickHouse server, started at the same time; both end with the process that started them.

    Args:
        directory: holds configuration, data and logs of both; a later stack in the same directory continues with them.
        kafka_port: port of the broker; its last port in this directory, or a free one, when None.
        clickhouse_port: port for ClickHouse's native protocol; chosen likewise.
        http_port: port of ClickHouse's HTTP interface; chosen likewise.
        usual_ports: prefer 9092, 9000 and 8123, if they are free, where no port was chosen before.
    """

    def __init__(
        self,
        directory: Path,
        *,
        kafka_port: int | None = None,
        clickhouse_port: int | None = None,
        http_port: int | None = None,
        usual_ports: bool = False,
    ) -> None:
        self.directory = directory.resolve()
        self.kafka = KafkaBroker(directory / "kafka", port=kafka_port, usual_ports=usual_ports)
        self.clickhouse = ClickHouseServer(
            directory / "clickhouse",
            port=clickhouse_port,
            http_port=http_port,
            users=users_of(load_roles(ClickHouseSettings().database, TopicsSettings().file)),
            usual_ports=usual_ports,
        )

    @property
    def lock_file(self) -> Path:
        """Lock of the process that keeps the stack running; see `pipeline.devstack.supervisor`."""
        return self.directory / "lock"

    @property
    def servers(self) -> tuple[Server, ...]:
        """Both servers in start order. ClickHouse goes first: it starts while the broker prepares its directory."""
        return self.clickhouse, self.kafka

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that point the worker and the tools at this stack."""
        return stack_environment(self.kafka.bootstrap_servers, self.clickhouse.port)

    @staticmethod
    def login(role: str) -> dict[str, str]:
        """Environment variables that log in to ClickHouse as the user of a role; see `pipeline.clickhouse.access`."""
        return {env_name("clickhouse", "user"): role, env_name("clickhouse", "password"): role}

    @property
    def running(self) -> bool:
        """True while both servers run."""
        return all(server.running for server in self.servers)

    def start(self) -> None:
        """Start both servers and wait until both answer; if one fails, stop the other.

        Nothing is started or stopped if a directory or a port isn't free.

        Raises:
            ConfigError: the extra isn't installed, or the directory is unusable.
            UnavailableError: a server didn't start; says which and why.
        """
        for server in self.servers:
            server.check()  # before anything starts
        try:
            for server in self.servers:
                server.launch()
            for server in self.servers:
                server.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both servers."""
        for server in self.servers:
            server.stop()

    def let_go(self) -> None:
        """Let both servers outlive this process; `pipeline.devstack.supervisor.stop` stops them."""
        for server in self.servers:
            server.let_go()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
