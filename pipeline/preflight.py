"""Before the worker starts: is everything there that it needs, and is it what this version expects?"""

import time
from collections.abc import Callable
from functools import partial

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential_jitter

from pipeline.config import KafkaSettings, Settings
from pipeline.contract import check_tables
from pipeline.errors import HaltError, UnavailableError
from pipeline.families import Catalog

_ANSWER_SECONDS = 5.0

log = structlog.get_logger("chimera.preflight")


def preflight(settings: Settings, catalog: Catalog, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait for Kafka and ClickHouse, however long that takes, saying so; then check topics and tables.

    Raises:
        HaltError: waiting wouldn't help: refused credentials, a missing topic, a table that differs.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(UnavailableError),
        wait=wait_exponential_jitter(0.5, 15),
        before_sleep=_say,
        sleep=sleep,
        reraise=True,
    )
    retrying(partial(check_topics, settings.kafka, catalog))
    retrying(partial(check_tables, settings.clickhouse, catalog.families))


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
    for family in catalog.families:
        if family.topic.name not in there:
            raise HaltError(f"{where}: no topic {family.topic.name}; create it with `chimera topics apply`")


def _say(state: RetryCallState) -> None:
    reason = state.outcome.exception() if state.outcome else None
    log.warning(str(reason), attempt=state.attempt_number, pause_seconds=round(state.upcoming_sleep, 1))
