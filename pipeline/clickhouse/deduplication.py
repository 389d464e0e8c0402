"""Checks that the deduplication windows of the tables are wide enough.

ClickHouse remembers the tokens of a table's last blocks. If it forgets a token while the insert may still be repeated,
it stores the rows twice. docs/reliability.md, section "Deduplication windows", explains the calculation.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pipeline.catalog import Catalog
from pipeline.clickhouse.block_budget import LEAST_BLOCKS_A_SECOND
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.pinned_settings import SILENCE_SECONDS
from pipeline.clickhouse.session_stats import TABLE
from pipeline.config import Settings, env_name
from pipeline.errors import HaltError

_FASTEST_INSERT_SECONDS = 0.002  # 2.4 ms measured, one row, server on the same machine
# Time for the join of the group, the next owner's insert checks, and its inserts before the repeated one. Nothing
# bounds it; while they take longer, the other inserts of the same server are as slow.
_TAKEOVER_SECONDS = 10.0
_ENGINE = re.compile(r"(?P<shared>Replicated|Shared)?\w*MergeTree")

_TABLES = "SELECT name, engine, engine_full FROM system.tables WHERE database = currentDatabase()"
_ENGINE_OF = "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"


def window_seconds_needed(settings: Settings) -> float:
    """Return the longest time from an insert to its repetition, in seconds.

    A worker inserts and is killed before its commit. The group misses it after the session timeout. The other workers
    hear of that with their next heartbeat, and finish what they have begun. One of them takes the partition over. Its
    insert starts within the lease, and the server waits for the rows.
    """
    kafka, worker = settings.kafka, settings.worker
    takeover = kafka.session_timeout_seconds + kafka.heartbeat_interval_seconds + worker.drain_seconds
    return takeover + _TAKEOVER_SECONDS + arrival_seconds(settings)


def arrival_seconds(settings: Settings) -> float:
    """Return the longest time from a commit to the arrival of the rows of an insert that it allows, in seconds."""
    return settings.worker.lease_seconds + 2 * SILENCE_SECONDS


def window_blocks_needed(settings: Settings, partitions: int, *, at_once: int | None = None) -> int:
    """Return how many blocks all workers together can insert into a table in `window_seconds_needed` without waiting.

    Args:
        settings: settings of every worker.
        partitions: number of partitions of the topic that fills the table.
        at_once: number of inserts of one partition at the same time; defaults to the most that the settings allow.
    """
    worker = settings.worker
    of_each = min(worker.insert_threads, worker.batches_in_flight) if at_once is None else at_once
    return math.ceil(partitions * of_each * window_seconds_needed(settings) / _FASTEST_INSERT_SECONDS)


def least_window_blocks(settings: Settings, partitions: int) -> int:
    """Return the blocks of the narrowest window that a worker starts with; see `BlockBudget`."""
    return math.ceil(2 * LEAST_BLOCKS_A_SECOND * window_seconds_needed(settings) * partitions)


def check_deduplication_windows(settings: Settings, catalog: Catalog, partitions: Mapping[str, int]) -> None:
    """Check the deduplication window of every table that the worker fills.

    Args:
        settings: settings of every worker, and the server.
        catalog: families and the rollup.
        partitions: number of partitions that each topic has on the broker, by name.

    A missing table is left out: inserts tell.

    Raises:
        HaltError: a window is too narrow; the message gives the table, its setting, the value and the expected value.
        UnavailableError: the server doesn't answer.
    """
    for table in _live_tables(settings, catalog, partitions):
        least = min(table.enough, least_window_blocks(settings, table.partitions))
        for name, needed in _needed(table.engine, settings, least):
            live = table.setting(name)
            if live is None or live < needed:
                raise HaltError(
                    f"table {settings.clickhouse.database}.{table.name} at {settings.clickhouse.address}: "
                    f"{name} is {'not set' if live is None else live}, {_expected(settings, table.partitions, needed)}"
                )


def window_shares(settings: Settings, catalog: Catalog, partitions: Mapping[str, int]) -> dict[str, float]:
    """Return each partition's share of a window in blocks, by table; infinite if it suffices for the fastest inserts.

    Args: as of `check_deduplication_windows`.

    Raises:
        UnavailableError: the server doesn't answer.
    """
    shares = dict[str, float]()
    for table in _live_tables(settings, catalog, partitions):
        name = window_setting(table.engine)
        if name and (blocks := table.setting(name)) is not None:
            shares[table.name] = math.inf if blocks >= table.enough else blocks / table.partitions
    return shares


class _Table(NamedTuple):
    """A table that the worker fills, as it is on the server."""

    name: str
    engine: str
    definition: str
    partitions: int
    enough: int
    """Blocks of a window that suffices for the fastest inserts of all partitions."""

    def setting(self, name: str) -> int | None:
        """Return the value of a setting; None if the table doesn't set it."""
        live = re.search(rf"\b{name} = (\d+)", self.definition)
        return int(live[1]) if live else None


def _live_tables(settings: Settings, catalog: Catalog, partitions: Mapping[str, int]) -> Iterator[_Table]:
    with explained(settings.clickhouse), connect(settings.clickhouse) as client:
        tables = {name: (engine, definition) for name, engine, definition in all_rows(client, _TABLES)}
    for table, topic, at_once in filled_tables(settings, catalog):
        if table in tables:
            enough = window_blocks_needed(settings, partitions[topic], at_once=at_once)
            yield _Table(table, *tables[table], partitions[topic], enough)


def filled_tables(settings: Settings, catalog: Catalog) -> Iterator[tuple[str, str, int | None]]:
    """Yield each table that the worker fills, its topic, and how many inserts of a partition run at once, if fixed."""
    for family in catalog.families:
        yield family.table, family.topic.name, None
    if settings.rollup.enabled and catalog.rollup:
        yield TABLE, catalog.rollup.source.topic.name, 1  # an hour's rows are stored before the next hour's


def _expected(settings: Settings, partitions: int, needed: int) -> str:
    keys = (
        ("worker", "lease_seconds"),
        ("kafka", "session_timeout_seconds"),
        ("worker", "drain_seconds"),
    )
    given = ", ".join(f"{env_name(part, key)}={getattr(getattr(settings, part), key):g}" for part, key in keys)
    return (
        f"expected at least {needed} for {partitions} partitions, {given}; with less, a repeated insert may be "
        "stored twice: run `chimera migrate`, or set a wider one with ALTER TABLE ... MODIFY SETTING, or lower these "
        "settings"
    )


def window_setting(engine: str) -> str | None:
    """Name of the setting with the number of blocks that tables of an engine remember; None if they remember none."""
    match = _ENGINE.fullmatch(engine)
    return match and ("replicated_deduplication_window" if match["shared"] else "non_replicated_deduplication_window")


def is_replicated(client: Any, table: str) -> bool:
    """True if a table's engine is replicated or shared; False for a missing table.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    engines = all_rows(client, _ENGINE_OF, {"table": table})
    return bool(engines) and window_setting(engines[0][0]) == "replicated_deduplication_window"


def _needed(engine: str, settings: Settings, blocks: int) -> Iterator[tuple[str, int]]:
    """Yield the needed table settings and their least values; none for an engine without deduplication windows."""
    if (name := window_setting(engine)) is None:
        return
    yield name, blocks
    if name.startswith("replicated"):
        yield "replicated_deduplication_window_seconds", math.ceil(window_seconds_needed(settings))
