"""Broker and database together: the whole development stack in one directory."""

from pathlib import Path
from typing import Self

from pipeline.clickhouse.access import load_roles
from pipeline.config import ClickHouseSettings, TopicsSettings, env_name
from pipeline.devstack.clickhouse import ClickHouseServer, users_of
from pipeline.devstack.kafka import KafkaBroker
from pipeline.devstack.ports import HOST
from pipeline.devstack.server import Server

DEVELOPMENT_HASH_KEY = "for-development-only-and-not-a-secret"
"""Everybody knows it: hashes made with it hide nothing."""


class Stack:
    """A Kafka broker and a ClickHouse server, started at the same time; both die with the process that started them.

    Args:
        directory: holds configuration, data and logs of both; a later stack in the same directory goes on with them.
        kafka_port: the one it had last time, or a free one, when None; likewise the others.
        clickhouse_port: native protocol.
        http_port: HTTP interface of ClickHouse.
        usual_ports: where no port was chosen, now or last time, prefer 9092, 9000 and 8123 when they are free.
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
        """The lock that whoever keeps the stack running holds; see `pipeline.devstack.supervisor`."""
        return self.directory / "lock"

    @property
    def servers(self) -> tuple[Server, ...]:
        """Both, in the order in which they are launched: the broker takes longer, and first prepares its directory."""
        return self.clickhouse, self.kafka

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that point the worker and the tools at this stack."""
        return {
            env_name("kafka", "bootstrap_servers"): self.kafka.bootstrap_servers,
            env_name("clickhouse", "host"): HOST,
            env_name("clickhouse", "port"): str(self.clickhouse.port),
            env_name("privacy", "hash_key"): DEVELOPMENT_HASH_KEY,
        }

    @staticmethod
    def login(role: str) -> dict[str, str]:
        """Environment variables that log in to ClickHouse as the user of a role, see `pipeline.clickhouse.access`."""
        return {env_name("clickhouse", "user"): role, env_name("clickhouse", "password"): role}

    @property
    def running(self) -> bool:
        """Whether both are."""
        return all(server.running for server in self.servers)

    def start(self) -> None:
        """Start both and wait until both answer; when one can't, the other is stopped again.

        Raises:
            ConfigError: the extra isn't installed, or the directory is unusable.
            UnavailableError: one of them didn't come up; says which and why.
        """
        try:
            for server in self.servers:
                server.launch()
            for server in self.servers:
                server.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both."""
        for server in self.servers:
            server.stop()

    def let_go(self) -> None:
        """Have both outlive us; `pipeline.devstack.supervisor.stop` stops them."""
        for server in self.servers:
            server.let_go()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
