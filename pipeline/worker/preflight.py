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
from pipeline.clickhouse.contract import check_rollup, check_tables
from pipeline.clickhouse.deduplication import check_deduplication_windows
from pipeline.clickhouse.dependent_views import check_views
from pipeline.clickhouse.engines import check_engines
from pipeline.clickhouse.pinned_settings import check_user
from pipeline.clickhouse.row_policies import check_row_policies
from pipeline.config import KafkaSettings, Settings
from pipeline.errors import UnavailableError, UnclearError
from pipeline.kafka.failures import check_connection, check_granted
from pipeline.kafka.topics import TopicAdmin, check_topics_exist
from pipeline.retry import UNCLEAR_SECONDS, pauses
from pipeline.worker.fresh_group import check_group

log = structlog.get_logger("chimera.preflight")

_LATE_SECONDS = 3.0

T = TypeVar("T")


def preflight(settings: Settings, catalog: Catalog, note: Callable[[str], None]) -> dict[str, dict[str, str]]:
    """Wait for Kafka and ClickHouse without limit, and check topics, tables and group.

    Args:
        settings: servers and group.
        catalog: families and topics.
        note: called with what the worker waits for.

    Returns:
        ClickHouse type of each column that the worker fills, by table and name: inserts go by these.

    Raises:
        HaltError: waiting wouldn't help: refused login, missing topic, wrong table, or fresh group.
    """
    rollup = catalog.rollup if settings.rollup.enabled else None
    kafka = partial(_until_available, f"Kafka at {settings.kafka.bootstrap_servers}", note)
    clickhouse = partial(_until_available, f"ClickHouse at {settings.clickhouse.address}", note)
    kafka(partial(check_topics, settings.kafka, catalog, rollup))
    clickhouse(partial(check_user, settings.clickhouse))
    columns: dict[str, dict[str, str]] = clickhouse(partial(check_tables, settings.clickhouse, catalog.families))
    if rollup:
        columns |= clickhouse(partial(check_rollup, settings.clickhouse))
        _warn_of_timestamps(rollup)
    clickhouse(partial(check_engines, settings.clickhouse, columns))
    clickhouse(partial(check_views, settings.clickhouse, columns))
    clickhouse(partial(check_row_policies, settings.clickhouse, columns))
    clickhouse(partial(check_windows, settings, catalog))
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
    server: str, note: Callable[[str], None], check: Callable[[], T], *, unclear_seconds: float = UNCLEAR_SECONDS
) -> T:
    """Return what a check gives; wait for a server without limit, and after an unclear failure for a while."""
    note(f"the worker waits for {server}")
    deadline = math.inf
    for attempt, pause in enumerate(pauses(0.5, 15), start=1):
        try:
            with _said_when_late(server):
                return check()
        except (UnavailableError, UnclearError) as error:
            if isinstance(error, UnclearError):
                deadline = min(deadline, time.monotonic() + unclear_seconds)
                if time.monotonic() >= deadline:
                    raise
            else:
                deadline = math.inf  # a server that goes down or comes up may answer unclearly
            note(str(error))
            log.warning(str(error), attempt=attempt, pause_seconds=round(pause, 1))
            time.sleep(pause)
    raise AssertionError("pauses have no end")


@contextmanager
def _said_when_late(server: str) -> Iterator[None]:
    """Log the server that is waited for, unless the block ends soon: a server may accept a connection and be silent."""
    said = threading.Timer(_LATE_SECONDS, log.warning, ["the worker waits for an answer"], {"server": server})
    said.daemon = True
    said.start()
    try:
        yield
    finally:
        said.cancel()
