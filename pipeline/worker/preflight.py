"""Checks before the worker starts: servers, topics, rights, tables and the consumer group are as this version needs."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import structlog
from confluent_kafka.admin import AclOperation

from pipeline.catalog import Catalog, RollupSpec
from pipeline.clickhouse.contract import check_rollup, check_tables, left_columns
from pipeline.clickhouse.deduplication import check_deduplication_windows
from pipeline.clickhouse.pinned_settings import check_user
from pipeline.clickhouse.rights import check_rights
from pipeline.clickhouse.table_checks import TABLE_CHECKS
from pipeline.config import KafkaSettings, Settings
from pipeline.errors import UnavailableError, UnclearError
from pipeline.kafka.failures import check_connection, check_granted
from pipeline.kafka.topics import TopicAdmin, check_topics_exist
from pipeline.retry import UNCLEAR_SECONDS, pauses
from pipeline.troubles import Troubles
from pipeline.worker.fresh_group import check_group

log = structlog.get_logger("chimera.preflight")

_LATE_SECONDS = 3.0
_PART = "start"

T = TypeVar("T")


def preflight(settings: Settings, catalog: Catalog, troubles: Troubles) -> dict[str, dict[str, str]]:
    """Wait for Kafka and ClickHouse without limit, and check topics, tables and group.

    Args:
        settings: servers and group.
        catalog: families and topics.
        troubles: told what the worker waits for.

    Returns:
        ClickHouse type of each column that the worker fills, by table and name: inserts go by these.

    Raises:
        HaltError: waiting wouldn't help: refused login, missing topic, wrong table, or fresh group.
    """
    rollup = catalog.rollup if settings.rollup.enabled else None
    kafka = partial(_until_available, f"Kafka at {settings.kafka.bootstrap_servers}", troubles)
    clickhouse = partial(_until_available, f"ClickHouse at {settings.clickhouse.address}", troubles)
    kafka(partial(check_topics, settings.kafka, catalog, rollup))
    clickhouse(partial(check_user, settings.clickhouse))
    columns: dict[str, dict[str, str]] = clickhouse(partial(check_tables, settings.clickhouse, catalog.families))
    if rollup:
        columns |= clickhouse(partial(check_rollup, settings.clickhouse))
        _warn_of_timestamps(rollup)
    for table, left in clickhouse(partial(left_columns, settings.clickhouse, columns)).items():
        if left:
            log.info("columns that are no fields are left to their defaults", table=table, columns=", ".join(left))
    for check in TABLE_CHECKS:
        clickhouse(partial(check.run, settings.clickhouse, columns))
    clickhouse(partial(check_windows, settings, catalog))
    clickhouse(partial(check_rights, settings.clickhouse, columns))
    if not settings.worker.allow_fresh_group:
        clickhouse(partial(check_group, settings, catalog))
    return columns


def _warn_of_timestamps(rollup: RollupSpec) -> None:
    """Warn if the producers set the timestamps that bound event time: a wrong clock would set both."""
    topic = rollup.source.topic
    if topic.timestamps == "producer":
        log.warning(
            "the producers set the timestamps of the records: one fast clock makes right events of its partition late; "
            "expected `timestamps: broker` in topics.yaml",
            topic=topic.name,
        )


def check_topics(settings: KafkaSettings, catalog: Catalog, rollup: RollupSpec | None) -> None:
    """Check that all topics exist, and that the user has the rights that the worker needs.

    The worker reads the families' topics, writes to their dead-letter topics, and does both with the rollup's state.

    Raises:
        HaltError: a topic or an ACL is missing, a dead-letter topic is compacted, or the broker refuses the login.
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
    admin.check_kept(family.dead_letters.name for family in catalog.families)
    if rollup:
        for needed in (AclOperation.READ, AclOperation.WRITE):
            check_granted(needed, rights[rollup.state.name], settings, f"topic {rollup.state.name}")
    check_granted(AclOperation.READ, admin.group_rights(settings.group_id), settings, f"group {settings.group_id}")


def check_windows(settings: Settings, catalog: Catalog) -> None:
    """Check the deduplication windows for the partitions that the topics have on the broker.

    Raises:
        HaltError: a window is too narrow.
        UnavailableError: a server doesn't answer.
    """
    partitions = TopicAdmin(settings.kafka).partitions(family.topic.name for family in catalog.families)
    check_deduplication_windows(settings, catalog, partitions)


def _until_available(
    server: str, troubles: Troubles, check: Callable[[], T], *, unclear_seconds: float = UNCLEAR_SECONDS
) -> T:
    """Return what a check gives; wait for a server without limit, and after an unclear failure for a while."""
    deadline = math.inf
    for attempt, pause in enumerate(pauses(0.5, 15), start=1):
        try:
            with _said_when_late(server, troubles):
                checked = check()
        except (UnavailableError, UnclearError) as error:
            if isinstance(error, UnclearError):
                deadline = min(deadline, time.monotonic() + unclear_seconds)
                if time.monotonic() >= deadline:
                    raise
            else:
                deadline = math.inf  # a server that goes down or comes up may answer unclearly
            troubles.report(_PART, str(error), attempts=attempt)
            time.sleep(pause)
        else:
            troubles.end(_PART)
            return checked
    raise AssertionError("pauses have no end")


@contextmanager
def _said_when_late(server: str, troubles: Troubles) -> Iterator[None]:
    """Report the server that is waited for, unless the block ends soon: one may accept a connection and be silent."""
    said = threading.Timer(_LATE_SECONDS, troubles.report, [_PART, f"the worker waits for an answer of {server}"])
    said.daemon = True
    said.start()
    try:
        yield
    finally:
        said.cancel()
        said.join()  # so that nothing is reported after this
