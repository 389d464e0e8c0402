"""Queries that read the cold days of the tables alone."""

from collections.abc import Iterable
from typing import Any

from pipeline.clickhouse.lookups import all_rows, named_rows
from pipeline.clickhouse.volumes import COLD
from pipeline.config import ClickHouseSettings
from pipeline.errors import ChimeraError
from pipeline.operations.storage.tables import Amount, StoredTable, live_tables, read_days, volumes


class NoColdVolumeError(ChimeraError):
    """No table has a cold volume."""


def cold_amounts(
    settings: ClickHouseSettings, client: Any, tables: tuple[StoredTable, ...]
) -> dict[str, tuple[tuple[str, ...], Amount]]:
    """Return the cold disks of each table, and the days on these; tables without a cold volume are left out.

    Raises:
        HaltError: a table is missing.
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    live, policies = live_tables(settings, client, tables), volumes(client)
    found = {}
    for table in tables:
        policy = policies.get(live[table.name].policy, {})
        if COLD in policy:
            days = read_days(client, table.name, policy)
            found[table.name] = (policy[COLD], Amount.of(day for day in days if day.tier == COLD))
    return found


def query_cold(
    client: Any, database: str, disks: dict[str, tuple[str, ...]], query: str
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return names and rows of a SELECT for which the tables have the rows on their cold disks only.

    Args:
        client: connected, with the tables' database as default.
        database: its name.
        disks: cold disks, by table.
        query: a SELECT; it may read several tables, each any number of times.

    Raises:
        NoColdVolumeError: no table has a cold volume.
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    if not disks:
        raise NoColdVolumeError(
            "no table has a volume `cold`; expected one, which `chimera storage apply` gives the tables where the "
            "server has a storage policy with it"
        )
    all_rows(client, f"EXPLAIN SYNTAX SELECT * FROM ({query})")  # noqa: S608 (refuses all but a SELECT)
    rows, columns = named_rows(client, query, settings={"additional_table_filters": _filters(database, disks)})
    return [name for name, _ in columns], rows


def _filters(database: str, disks: dict[str, Iterable[str]] | dict[str, tuple[str, ...]]) -> str:
    """Return the value of additional_table_filters: the server leaves out parts on other disks before it reads."""
    entries = []
    for table, names in disks.items():
        listed = ", ".join(f"\\'{name}\\'" for name in names)
        entries.append(f"'{database}.{table}': '_disk_name IN ({listed})'")
    return "{" + ", ".join(entries) + "}"
