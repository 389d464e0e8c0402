"""Before the worker starts: is everything there that it needs, and is it what this version expects?"""

import socket
import time
from collections.abc import Callable
from functools import partial

import structlog
from confluent_kafka.admin import AclOperation

from pipeline.catalog import Catalog, RollupSpec
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.contract import check_rollup, check_tables
from pipeline.clickhouse.deduplication import check_deduplication_windows
from pipeline.config import KafkaSettings, Settings, WorkerSettings, env_name
from pipeline.errors import ConfigError, HaltError, UnavailableError
from pipeline.kafka.failures import check_connection, check_granted
from pipeline.kafka.offsets import TopicReader
from pipeline.kafka.topics import TopicAdmin, check_topics_exist
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
    check_topics_exist(settings, catalog.topics, rights)
    for family in catalog.families:
        source, dead_letters = family.topic.name, family.dead_letters.name
        check_granted(AclOperation.READ, rights[source], settings, f"topic {source}")
        check_granted(AclOperation.WRITE, rights[dead_letters], settings, f"topic {dead_letters}")
    if rollup:
        for needed in (AclOperation.READ, AclOperation.WRITE):
            check_granted(needed, rights[rollup.state.name], settings, f"topic {rollup.state.name}")
    check_granted(AclOperation.READ, admin.group_rights(settings.group_id), settings, f"group {settings.group_id}")


def check_group(settings: Settings, catalog: Catalog) -> None:
    """See that the group wouldn't begin with topics whose records are in their tables already.

    The tables are looked at first: a worker that starts at the same time commits something before it stores a row.

    Raises:
        HaltError: it would; says with which topic, and what to do.
        UnavailableError: a server doesn't answer.
    """
    with explained(settings.clickhouse), connect(settings.clickhouse) as client:
        filled = {name for (name,) in client.execute(_FILLED_TABLES)}
    for family in catalog.families:
        if family.table in filled and (records := _records_of_a_fresh_group(settings.kafka, family.topic.name)):
            raise HaltError(
                f"group {settings.kafka.group_id} has committed no offset of {family.topic.name}, whose {records} "
                f"records would be stored in {settings.clickhouse.database}.{family.table}, which has rows: a "
                "second time, if they come from there; use the group that stored them, or, when they don't (the "
                f"topic was created anew), start once with {env_name('worker', 'allow_fresh_group')}=true"
            )


def _records_of_a_fresh_group(settings: KafkaSettings, topic: str) -> int:
    """Return the number of records in the topic; 0 if the group has committed an offset of it."""
    with TopicReader(settings, topic, answer_seconds=_ANSWER_SECONDS) as reader:
        numbers = reader.partitions()
        if any(offset is not None for offset in reader.committed(numbers).values()):
            return 0
        return sum(map(len, reader.ranges(numbers).values()))


def _until_available(check: Callable[[], None]) -> None:
    for attempt, pause in enumerate(pauses(0.5, 15), start=1):
        try:
            check()
        except UnavailableError as error:
            log.warning(str(error), attempt=attempt, pause_seconds=round(pause, 1))
            time.sleep(pause)
        else:
            return
