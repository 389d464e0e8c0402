"""Projections for the heavy queries of the specification: hourly sums and quantiles, kept within each part.

They stay exact through merges, deletes and swaps, since they are a part's own. They cost inserts more than the rest of
the storage together (docs/storage.md), so no migration adds them: an operator does, where dashboards ask these
questions.
"""

from collections.abc import Iterator
from typing import Any

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.table_lock import TableLock
from pipeline.config import ClickHouseSettings
from pipeline.errors import ConfigError

PROJECTIONS = {
    "ui_events": {
        "hourly_event_type": (
            "SELECT toStartOfHour(ts), event_type, count(), uniq(session_id), avg(latency_ms), "
            "quantile(0.95)(latency_ms) GROUP BY toStartOfHour(ts), event_type"
        ),
        "hourly_user_agent": (
            "SELECT toStartOfHour(ts), user_agent, count(), avg(latency_ms), quantile(0.95)(latency_ms) "
            "GROUP BY toStartOfHour(ts), user_agent"
        ),
    },
    "llm_events": {
        "hourly_operation": (
            "SELECT toStartOfHour(ts), operation, count(), avg(latency_ms), quantile(0.95)(latency_ms) "
            "GROUP BY toStartOfHour(ts), operation"
        ),
    },
}
"""Declared projections, by table and name. A query uses one if it filters by `toStartOfHour(ts)`."""

_LIVE = """
SELECT name, (SELECT sum(bytes_on_disk) FROM system.projection_parts AS parts
    WHERE parts.database = currentDatabase() AND parts.table = %(table)s AND active AND parts.name = projections.name)
FROM system.projections WHERE database = currentDatabase() AND table = %(table)s
"""
_UNBUILT = """
SELECT partition, partition_id FROM system.parts
WHERE database = currentDatabase() AND table = %(table)s AND active AND rows > 0 AND NOT has(projections, %(name)s)
GROUP BY partition, partition_id ORDER BY partition
"""
_LONGEST_SECONDS = 6 * 3600.0


def declared(table: str, name: str) -> str:
    """Return the SELECT of a projection.

    Raises:
        ConfigError: no such projection is declared.
    """
    if table not in PROJECTIONS or name not in PROJECTIONS[table]:
        known = ", ".join(f"{one} {other}" for one, others in PROJECTIONS.items() for other in others)
        raise ConfigError(f"no projection {name!r} of {table!r} is declared; expected one of: {known}")
    return PROJECTIONS[table][name]


def live_projections(client: Any, table: str) -> dict[str, int]:
    """Return the bytes of each projection of a table, by name.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    return {name: int(size or 0) for name, size in all_rows(client, _LIVE, {"table": table})}


def unbuilt_days(client: Any, table: str, name: str) -> list[tuple[str, str]]:
    """Return days with parts that lack a projection, and the ids of their partitions; oldest first.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    return [(day, partition) for day, partition in all_rows(client, _UNBUILT, {"table": table, "name": name})]


def add_projection(settings: ClickHouseSettings, table: str, name: str) -> Iterator[tuple[int, int]]:
    """Add a projection, and build it for old days; yield the number of days done, and of all. May be repeated.

    Raises:
        ConfigError: no such projection is declared.
        TakenError: a replay or a repair of the table is under way; its staging table must be like the table.
        HaltError, UnavailableError: the server refuses, or doesn't answer.
    """
    query = declared(table, name)
    patient = settings.model_copy(update={"query_timeout_seconds": _LONGEST_SECONDS})
    with explained(settings), connect(patient) as client:
        with TableLock(settings, table):
            # Without it, the server refuses DELETE FROM on a table with projections.
            client.execute(f"ALTER TABLE `{table}` MODIFY SETTING lightweight_mutation_projection_mode = 'rebuild'")
            client.execute(f"ALTER TABLE `{table}` ADD PROJECTION IF NOT EXISTS {name} ({query})")
        days = unbuilt_days(client, table, name)
        for done, (_, partition) in enumerate(days, start=1):
            client.execute(
                f"ALTER TABLE `{table}` MATERIALIZE PROJECTION {name} IN PARTITION ID '{partition}'",
                settings={"mutations_sync": 2, "max_execution_time": 0},
            )
            yield done, len(days)


def drop_projection(settings: ClickHouseSettings, table: str, name: str) -> None:
    """Drop a projection; may be repeated.

    Raises:
        ConfigError, TakenError, HaltError, UnavailableError: as for `add_projection`.
    """
    declared(table, name)
    with explained(settings), connect(settings) as client, TableLock(settings, table):
        client.execute(f"ALTER TABLE `{table}` DROP PROJECTION IF EXISTS {name}")
