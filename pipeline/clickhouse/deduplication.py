"""Checks that the deduplication windows of the tables are wide enough.

ClickHouse remembers the tokens of a table's last blocks. If it forgets a token while the insert may still be repeated,
it stores the rows twice. docs/reliability.md, section "Deduplication windows", explains the calculation.
"""

import math
import re
from collections.abc import Iterator

from pipeline.catalog import Catalog
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.pinned_settings import SILENCE_SECONDS
from pipeline.clickhouse.session_stats import TABLE
from pipeline.config import Settings, WorkerSettings, env_name
from pipeline.errors import HaltError

_FASTEST_INSERT_SECONDS = 0.002  # 2.4 ms measured, one row, server on the same machine
_PLAIN_ENGINE = re.compile(r"(?!Replicated|Shared)\w*MergeTree")
_REPLICATED_ENGINE = re.compile(r"(Replicated|Shared)\w*MergeTree")

_TABLES = "SELECT name, engine, engine_full FROM system.tables WHERE database = currentDatabase()"


def window_seconds_needed(settings: WorkerSettings) -> float:
    """Longest time between the commit of a range and the arrival of its insert, in seconds."""
    return settings.lease_seconds + 2 * SILENCE_SECONDS


def window_blocks_needed(settings: WorkerSettings, partitions: int) -> int:
    """Most blocks that all workers together can insert into one table in `window_seconds_needed`.

    Args:
        settings: of every worker.
        partitions: of the topic that fills the table.
    """
    at_once = partitions * min(settings.insert_threads, settings.batches_in_flight)
    return math.ceil(at_once * window_seconds_needed(settings) / _FASTEST_INSERT_SECONDS)


def check_deduplication_windows(settings: Settings, catalog: Catalog) -> None:
    """Check the deduplication window of every table that the worker fills.

    Raises:
        HaltError: a window is too narrow; the message gives the table, its setting, the value and the expected value.
        UnavailableError: the server doesn't answer.
    """
    with explained(settings.clickhouse), connect(settings.clickhouse) as client:
        tables = {name: (engine, definition) for name, engine, definition in client.execute(_TABLES)}
    for table, partitions in _filled_tables(settings, catalog):
        engine, definition = tables[table]
        for name, needed in _needed(engine, settings.worker, partitions):
            live = re.search(rf"\b{name} = (\d+)", definition)
            if live is None or int(live[1]) < needed:
                raise HaltError(
                    f"table {settings.clickhouse.database}.{table} at {settings.clickhouse.address}: "
                    f"{name} is {live[1] if live else 'not set'}, {_expected(settings.worker, partitions, needed)}"
                )


def _filled_tables(settings: Settings, catalog: Catalog) -> Iterator[tuple[str, int]]:
    """Yield each table that the worker fills, with the number of partitions of its topic."""
    for family in catalog.families:
        yield family.table, family.topic.partitions
    if settings.rollup.enabled and catalog.rollup:
        yield TABLE, catalog.rollup.source.topic.partitions


def _expected(settings: WorkerSettings, partitions: int, needed: int) -> str:
    given = ", ".join(
        f"{env_name('worker', key)}={getattr(settings, key):g}"
        for key in ("insert_threads", "batches_in_flight", "lease_seconds")
    )
    return (
        f"expected at least {needed} for {partitions} partitions, {given}; with less, a repeated insert may be "
        "stored twice: change it with ALTER TABLE ... MODIFY SETTING, or lower these settings"
    )


def _needed(engine: str, settings: WorkerSettings, partitions: int) -> Iterator[tuple[str, int]]:
    """Yield the needed table settings and their least values; none for an engine without deduplication windows."""
    blocks = window_blocks_needed(settings, partitions)
    if _PLAIN_ENGINE.fullmatch(engine):
        yield "non_replicated_deduplication_window", blocks
    elif _REPLICATED_ENGINE.fullmatch(engine):
        yield "replicated_deduplication_window", blocks
        yield "replicated_deduplication_window_seconds", math.ceil(window_seconds_needed(settings))
