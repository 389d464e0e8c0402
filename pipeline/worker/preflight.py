"""Before the worker starts: is everything there that it needs, and is it what this version expects?"""

import socket
import time
from collections.abc import Callable
from functools import partial

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AclOperation

from pipeline.catalog import Catalog, RollupSpec
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.contract import check_rollup, check_tables
from pipeline.clickhouse.deduplication import check_deduplication_windows
from pipeline.config import KafkaSettings, Settings, WorkerSettings, env_name
from pipeline.errors import ConfigError, HaltError, UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import check_connection, expect, explain_kafka
from pipeline.kafka.topics import TopicAdmin
from pipeline.retry import pauses

_ANSWER_SECONDS = 5.0
_FILLED_TABLES = "SELECT name FROM system.tables WHERE database = currentDatabase() AND total_rows > 0"

log = structlog.get_logger("chimera.preflight")


def preflight(settings: Settings, catalog: Catalog) -> None:
    """Wait for Kafka and ClickHouse, however long that takes, saying so; then check topics, tables and group.

    Raises:
        ConfigError: the web server's port can't be had.
        HaltError: waiting wouldn't help: refused credentials, a missing topic, a table that differs, a fresh group.
    """
    check_web_port(settings.worker)
    rollup = catalog.rollup if settings.rollup.enabled else None
    _until_available(partial(check_topics, settings.kafka, catalog, rollup))
    _until_available(partial(check_tables, settings.clickhouse, catalog.families))
    if rollup:
        _until_available(partial(check_rollup, settings.clickhouse))
    _until_available(partial(check_deduplication_windows, settings, catalog))
    if not settings.worker.allow_fresh_group:
        _until_available(partial(check_group, settings, catalog))


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


def check_topics(settings: KafkaSettings, catalog: Catalog, rollup: RollupSpec | None) -> None:
    """Find all topics, and see that we may do with them what we have to.

    The worker reads those of the families, writes to those of their dead letters, and does both to the rollup's state.

    Raises:
        HaltError: one is missing, an ACL is, or the broker doesn't let us in.
        UnavailableError: the broker doesn't answer.
    """
    check_connection(settings)
    admin = TopicAdmin(settings)
    rights = admin.rights(topic.name for topic in catalog.topics)
    for topic in catalog.topics:
        if topic.name not in rights:
            where = f"Kafka at {settings.bootstrap_servers}"
            raise HaltError(f"{where}: no topic {topic.name}; create it with `chimera topics apply`")
    for family in catalog.families:
        expect(AclOperation.READ, rights[family.topic.name], settings, f"topic {family.topic.name}")
        expect(AclOperation.WRITE, rights[family.dead_letters.name], settings, f"topic {family.dead_letters.name}")
    if rollup:
        for needed in (AclOperation.READ, AclOperation.WRITE):
            expect(needed, rights[rollup.state.name], settings, f"topic {rollup.state.name}")
    expect(AclOperation.READ, admin.group_rights(settings.group_id), settings, f"group {settings.group_id}")


def check_group(settings: Settings, catalog: Catalog) -> None:
    """See that the group wouldn't begin with topics whose records are in their tables already.

    The tables are looked at first: a worker that starts at the same time commits something before it stores a row.

    Raises:
        HaltError: it would; says with which topic, and what to do.
        UnavailableError: a server doesn't answer.
    """
    with explained(settings.clickhouse), connect(settings.clickhouse) as client:
        filled = {name for (name,) in client.execute(_FILLED_TABLES)}
    consumer = Consumer({**client_config(settings.kafka), "group.id": settings.kafka.group_id, "log_level": 0})
    try:
        for family in catalog.families:
            if family.table in filled and (records := _records_of_a_fresh_group(consumer, family.topic.name)):
                raise HaltError(
                    f"group {settings.kafka.group_id} has committed no offset of {family.topic.name}, whose {records} "
                    f"records would be stored in {settings.clickhouse.database}.{family.table}, which has rows: a "
                    "second time, if they come from there; use the group that stored them, or, when they don't (the "
                    f"topic was created anew), start once with {env_name('worker', 'allow_fresh_group')}=true"
                )
    except KafkaException as error:
        raise explain_kafka(error.args[0], settings.kafka, f"group {settings.kafka.group_id}") from error
    finally:
        consumer.close()


def _records_of_a_fresh_group(consumer: Consumer, topic: str) -> int:
    """How many records the topic has; 0 when the group has committed an offset of it."""
    numbers = consumer.list_topics(topic, _ANSWER_SECONDS).topics[topic].partitions
    partitions = [TopicPartition(topic, number) for number in numbers]
    if any(partition.offset >= 0 for partition in consumer.committed(partitions, _ANSWER_SECONDS)):
        return 0
    watermarks = (consumer.get_watermark_offsets(partition, _ANSWER_SECONDS) for partition in partitions)
    return sum(end - beginning for beginning, end in watermarks)


def _until_available(check: Callable[[], None]) -> None:
    for attempt, pause in enumerate(pauses(0.5, 15), start=1):
        try:
            check()
        except UnavailableError as error:
            log.warning(str(error), attempt=attempt, pause_seconds=round(pause, 1))
            time.sleep(pause)
        else:
            return
