"""Broker and ClickHouse in containers, for tests that run with `--stack=containers`."""

from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from pipeline.devstack.ports import HOST, free_port
from pipeline.devstack.stack import stack_environment

COMPOSE_FILE = Path(__file__).parents[2] / "docker-compose.yml"
_START_SECONDS = 120


def images(compose_file: Path = COMPOSE_FILE) -> dict[str, str]:
    """Images by service, as docker-compose.yml pins them."""
    services = yaml.safe_load(compose_file.read_text(encoding="utf-8"))["services"]
    return {name: service["image"] for name, service in services.items() if "image" in service}


def skip_without_engine() -> None:
    """Skip the test, with a reason, when no container engine answers."""
    docker = pytest.importorskip("docker")
    try:
        docker.from_env(timeout=5).ping()
    except (docker.errors.DockerException, OSError) as error:
        pytest.skip(f"--stack=containers needs a container engine, and none answers: {error}")


class ContainerServer:
    """A server in a container, with the methods that tests call on a local server."""

    def __init__(self, container: Any, port: int, *, ready: str) -> None:
        self._container = container
        self._ready = ready
        self.port = port

    def start(self) -> None:
        """Start the container and wait for the log line that says the server is up."""
        from testcontainers.core.waiting_utils import wait_for_logs

        if self._container.get_wrapped_container() is None:
            self._container.start()
        else:
            self._container.get_wrapped_container().start()
        wait_for_logs(self._container, self._ready, timeout=_START_SECONDS)

    def stop(self) -> None:
        self._container.get_wrapped_container().stop()

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()

    def pause(self) -> None:
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        if self._status == "paused":
            self._container.get_wrapped_container().unpause()

    def remove(self) -> None:
        self._container.stop(force=True)

    @property
    def running(self) -> bool:
        return self._status in {"running", "paused"}

    @property
    def _status(self) -> str:
        """Status as the container engine names it; an empty string before the first start."""
        wrapped = self._container.get_wrapped_container()
        if wrapped is None:
            return ""
        wrapped.reload()
        return str(wrapped.status)


class ContainerBroker(ContainerServer):
    """Apache Kafka, advertised under its port on this machine."""

    def __init__(self, image: str) -> None:
        from testcontainers.core.container import DockerContainer

        port = free_port()
        environment = {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{HOST}:{port}",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        }
        container = DockerContainer(image).with_envs(**environment).with_bind_ports(port, port)
        super().__init__(container, port, ready="Kafka Server started")

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"


class ContainerClickHouse(ContainerServer):
    """ClickHouse; its default user has no password, as in the local stack."""

    def __init__(self, image: str) -> None:
        from testcontainers.core.container import DockerContainer

        port, self.http_port = free_port(), free_port()
        container = DockerContainer(image).with_envs(CLICKHOUSE_SKIP_USER_SETUP="1")
        container = container.with_bind_ports(9000, port).with_bind_ports(8123, self.http_port)
        super().__init__(container, port, ready="Logging errors to")


class ContainerStack:
    """Both servers, with the part of the interface of `pipeline.devstack.Stack` that tests use."""

    def __init__(self) -> None:
        pinned = images()
        self.kafka = ContainerBroker(pinned["kafka"])
        self.clickhouse = ContainerClickHouse(pinned["clickhouse"])

    @property
    def servers(self) -> tuple[ContainerServer, ...]:
        return self.clickhouse, self.kafka

    @property
    def environment(self) -> dict[str, str]:
        return stack_environment(self.kafka.bootstrap_servers, self.clickhouse.port)

    def start(self) -> None:
        for server in self.servers:
            if not server.running:
                server.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.remove()
