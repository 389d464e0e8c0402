"""Before the worker starts: is everything there that it needs, and is it what this version expects?"""

import socket
import time
from collections.abc import Callable
from functools import partial

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipeline.backoff import pauses
from pipeline.config import KafkaSettings, Settings, WorkerSettings, env_name
from pipeline.contract import check_tables
from pipeline.errors import ConfigError, HaltError, UnavailableError
from pipeline.families import Catalog

_ANSWER_SECONDS = 5.0

log = structlog.get_logger("chimera.preflight")


def preflight(settings: Settings, catalog: Catalog) -> None:
    """Wait for Kafka and ClickHouse, however long that takes, saying so; then check topics and tables.

    Raises:
        ConfigError: the web server's port can't be had.
        HaltError: waiting wouldn't help: refused credentials, a missing topic, a table that differs.
    """
    check_web_port(settings.worker)
    _until_available(partial(check_topics, settings.kafka, catalog))
    _until_available(partial(check_tables, settings.clickhouse, catalog.families))


def check_web_port(settings: WorkerSettings) -> None:
    """See that the web server could listen now.

    Raises:
        ConfigError: it couldn't.
    """
    try:
        socket.create_server((settings.web_host, settings.web_port)).close()
    except OSError as error:
        where, setting = f"{settings.web_host}:{settings.web_port}", env_name("worker", "web_port")
        raise ConfigError(f"{setting}: expected a port to listen on, got {where}: {error.strerror}") from None


def check_topics(settings: KafkaSettings, catalog: Catalog) -> None:
    """Find the topic of every family.

    Raises:
        HaltError: one is missing.
        UnavailableError: the broker doesn't answer.
    """
    where = f"Kafka at {settings.bootstrap_servers}"
    client = AdminClient({**settings.client, "log_level": 0})
    try:
        there = client.list_topics(timeout=_ANSWER_SECONDS).topics
    except KafkaException as error:
        raise UnavailableError(f"{where} is not available: {error.args[0].str()}") from error
    for topic in catalog.topics:
        if topic.name not in there:
            raise HaltError(f"{where}: no topic {topic.name}; create it with `chimera topics apply`")


def _until_available(check: Callable[[], None]) -> None:
    for attempt, pause in enumerate(pauses(0.5, 15), start=1):
        try:
            check()
        except UnavailableError as error:
            log.warning(str(error), attempt=attempt, pause_seconds=round(pause, 1))
            time.sleep(pause)
        else:
            return
