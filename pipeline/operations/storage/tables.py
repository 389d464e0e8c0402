"""Tables that the pipeline fills, and their days on the server's disks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.catalog import Catalog, RowRetention
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.volumes import VOLUMES
from pipeline.config import ClickHouseSettings
from pipeline.errors import ConfigError, HaltError

HOT = "hot"
TIERS = (HOT, *VOLUMES)
"""Tiers in the order in which a day passes through them; the first stands for all volumes but `warm` and `cold`."""

_TABLES = """
SELECT name, engine, engine_full, storage_policy FROM system.tables WHERE database = currentDatabase()
"""
_VOLUMES = "SELECT policy_name, volume_name, disks FROM system.storage_policies"
_DAYS = """
SELECT partition, partition_id, disk_name, sum(rows), sum(bytes_on_disk), count(),
    dateDiff('day', toDate(partition), today()), arraySort(groupUniqArray(default_compression_codec))
FROM system.parts
WHERE database = currentDatabase() AND table = %(table)s AND active AND rows > 0
    AND match(partition, '^[0-9]{4}-[0-9]{2}-[0-9]{2}$')
GROUP BY partition, partition_id, disk_name ORDER BY partition, disk_name
"""


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table that the pipeline fills."""

    name: str
    time: str
    """Column whose day is the partition."""
    retention: RowRetention | None
    """As topics.yaml declares it."""


class LiveTable(NamedTuple):
    """A table as the server has it."""

    engine: str
    definition: str
    """Engine, keys, TTL and settings, as the server writes them."""
    policy: str

    @property
    def shared(self) -> bool:
        """True if several servers have the table."""
        return self.engine.startswith(("Replicated", "Shared"))


class Day(NamedTuple):
    """A day of a table on one tier."""

    day: str
    partition_id: str
    tier: str
    rows: int
    size: int
    """Bytes on disk."""
    parts: int
    age: int
    """Days since, by the server's clock; negative for days to come."""
    codecs: tuple[str, ...]
    """Default codecs of its parts."""


class Amount(NamedTuple):
    """Sum over days."""

    days: int
    rows: int
    size: int
    first: str
    last: str

    @classmethod
    def of(cls, days: Iterable[Day]) -> "Amount":
        """Return the sum; first and last are empty without days."""
        listed = list(days)
        names = sorted({each.day for each in listed})
        rows, size = sum(each.rows for each in listed), sum(each.size for each in listed)
        return cls(len(names), rows, size, names[0] if names else "", names[-1] if names else "")


def stored_tables(catalog: Catalog, names: Iterable[str] = ()) -> tuple[StoredTable, ...]:
    """Return the tables of the families, and session_stats if topics.yaml declares the rollup.

    Args:
        catalog: topics and families.
        names: tables to choose; all without any.

    Raises:
        ConfigError: no such table is declared.
    """
    tables = [StoredTable(family.table, "ts", family.topic.rows) for family in catalog.families]
    if catalog.rollup:
        tables.append(StoredTable(TABLE, "hour", catalog.rollup.state.rows))
    known = {table.name: table for table in tables}
    chosen = tuple(names)
    for name in chosen:
        if name not in known:
            raise ConfigError(f"no table {name!r} is declared in topics.yaml; expected one of {', '.join(known)}")
    return tuple(table for table in tables if not chosen or table.name in chosen)


def live_tables(settings: ClickHouseSettings, client: Any, tables: Iterable[StoredTable]) -> dict[str, LiveTable]:
    """Return the tables as the server has them, by name.

    Raises:
        HaltError: a table is missing.
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    live = {name: LiveTable(*rest) for name, *rest in all_rows(client, _TABLES)}
    for table in tables:
        if table.name not in live:
            raise HaltError(
                f"table {settings.database}.{table.name} at {settings.address}: missing; create it with "
                "`chimera migrate`"
            )
    return live


def volumes(client: Any) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the disks of each volume, by policy and volume.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for policy, volume, disks in all_rows(client, _VOLUMES):
        found.setdefault(policy, {})[volume] = tuple(disks)
    return found


def read_days(client: Any, table: str, policy: Mapping[str, tuple[str, ...]]) -> tuple[Day, ...]:
    """Return the days of a table, oldest first; a day on several tiers is there once for each.

    Args:
        client: connected, with the table's database as default.
        table: its partitions are days.
        policy: disks of each volume of its storage policy.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    tiers = {disk: volume for volume in VOLUMES for disk in policy.get(volume, ())}
    days: dict[tuple[str, str], Day] = {}
    for day, partition_id, disk, rows, size, parts, age, codecs in all_rows(client, _DAYS, {"table": table}):
        tier = tiers.get(disk, HOT)
        new = Day(day, partition_id, tier, rows, size, parts, age, tuple(codecs))
        if (old := days.get((day, tier))) is not None:
            new = new._replace(rows=old.rows + rows, size=old.size + size, parts=old.parts + parts)
            new = new._replace(codecs=tuple(sorted({*old.codecs, *codecs})))
        days[day, tier] = new
    return tuple(days.values())
