"""Restore tables of a backup, by default beside: into another database.

If the process of a RESTORE was killed, the statement runs on, and the next restore follows it by its id. A restore
begins in a database without the tables to restore. So if it ends without its whole result, all these tables are its
own: they are dropped and restored again.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.config import ClickHouseSettings, Settings
from pipeline.errors import ChimeraError, ConfigError, HaltError
from pipeline.operations.backup.create import partitions
from pipeline.operations.backup.destination import Destination
from pipeline.operations.backup.manifest import TABLE, BackupRecord, Manifest
from pipeline.operations.backup.operations import RESTORED, OperationError, follow, look, start

_THERE = "SELECT name, total_rows FROM system.tables WHERE database = %(database)s"
_DAYS = """
SELECT partition, sum(rows) FROM system.parts WHERE database = %(database)s AND table = %(table)s AND active
GROUP BY partition
"""
_OWN = frozenset({TABLE, "schema_versions"})  # kept as they are in a database that has them


class DoublesError(ChimeraError):
    """A restore would double rows, or mix them with others; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Restoration:
    """A restore that was checked, and can be made.

    Args:
        record: backup.
        chain: names of it and of the backups that it needs.
        tables: tables to restore.
        days: days to restore; empty for all.
        into: database that gets them.
        in_place: True if that is the configured database.
        kept: tables that stay as they are there.
        resumed: True if it goes on with one that was killed.
    """

    record: BackupRecord
    chain: tuple[str, ...]
    tables: tuple[str, ...]
    days: tuple[str, ...]
    into: str
    in_place: bool
    kept: tuple[str, ...] = ()
    resumed: bool = False


def bring(
    settings: Settings,
    record: BackupRecord,
    tables: Sequence[str],
    days: Sequence[str],
    into: str,
    *,
    facts: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> bool:
    """Restore tables into a database that has none of them, or go on with a restore of the same that was killed.

    The database isn't the configured one; it is made if it is missing. Return False if all was done already.

    Raises:
        DoublesError: the database has tables of other origin.
        UnavailableError, HaltError: ClickHouse doesn't answer, refuses, or the restore failed.
    """
    clickhouse, manifest = settings.clickhouse, Manifest(settings.clickhouse)
    last, taken = manifest.restore_of(into), sorted(set(tables_of(clickhouse, into)) & set(tables))
    wanted = {"backup": record.name, "tables": sorted(tables), "days": list(days), "to": (facts or {}).get("to")}
    if taken and any(last.get(name) != value for name, value in wanted.items()):
        raise DoublesError(
            f"database {into} at {clickhouse.address} has a table {taken[0]} already; expected none of "
            f"{', '.join(sorted(tables))}: name another database with --into, or drop this one: DROP DATABASE {into}"
        )
    if taken and last["step"] != "restoring":
        return False
    if taken:
        if _finished(clickhouse, last["id"], progress):
            manifest.note_restore(into, "restored", {})
            return False
        _drop(clickhouse, into, tables)
    operation = f"{into}-{secrets.token_hex(8)}"
    manifest.note_restore(into, "restoring", {**wanted, **(facts or {}), "id": operation})
    with explained(clickhouse), connect(clickhouse, database="") as client:
        client.execute(f"CREATE DATABASE IF NOT EXISTS `{into}`")
    run_restore(settings, record, tables, days=days, into=into, operation=operation, progress=progress)
    manifest.note_restore(into, "restored", {})
    return True


def run_restore(
    settings: Settings,
    record: BackupRecord,
    tables: Sequence[str],
    *,
    days: Sequence[str],
    into: str,
    operation: str,
    progress: Callable[[int], None] = lambda _: None,
    **options: str,
) -> None:
    """Have the server restore tables, and wait for its end; options are more settings of RESTORE, in SQL.

    Raises:
        UnavailableError, HaltError: ClickHouse doesn't answer, refuses, or the restore failed.
    """
    database, clause = record.facts["database"], {"days": list(days)}
    listed = ", ".join(
        f"TABLE `{database}`.`{table}` AS `{into}`.`{table}`{partitions(clause, table)}" for table in tables
    )
    source = Destination(record.place).of(record.name, settings.backup)
    attempts = settings.backup.s3_attempts
    start(settings.clickhouse, f"RESTORE {listed} FROM {source}", operation, s3_attempts=attempts, **options)
    try:
        follow(settings.clickhouse, operation, f"restore of {record.name} into {into}", progress)
    except OperationError as error:
        hint = "the backup isn't whole, or a backup that it builds on is gone" if error.code == 599 else ""
        raise OperationError(f"{error}{hint and f'; {hint}'}", error.code) from None


def check_tables_in(record: BackupRecord, tables: Sequence[str], days: Sequence[str]) -> tuple[str, ...]:
    """Return the tables to restore: those that were asked for, or all of the backup.

    Raises:
        ConfigError: the backup isn't whole, or lacks a table or a day.
    """
    if record.state != "ok":
        raise ConfigError(f"backup {record.name} is {record.state}; expected one that `chimera backup list` calls ok")
    if missing := sorted(set(tables) - set(record.tables)):
        raise ConfigError(f"backup {record.name}: no table {missing[0]!r}; it has {', '.join(record.tables)}")
    if record.days and (missing := sorted(set(days) - set(record.days))):
        raise ConfigError(f"backup {record.name}: no day {missing[0]}; it has {', '.join(record.days)}")
    return tuple(table for table in record.tables if (table in tables if tables else table != TABLE))


def move_in(clickhouse: ClickHouseSettings, staged: str, tables: Sequence[str], kept: Sequence[str]) -> None:
    """Move restored tables, or their days, into the configured database; it may be repeated after a kill.

    Raises:
        DoublesError: a table has got rows of these days meanwhile; what is moved stays.
        UnavailableError, HaltError: ClickHouse doesn't answer, or refuses.
    """
    there = tables_of(clickhouse, clickhouse.database)
    with explained(clickhouse), connect(clickhouse) as client:
        for table in tables:
            if table in kept or table not in tables_of(clickhouse, staged):
                continue
            if table not in there:
                client.execute(f"RENAME TABLE `{staged}`.`{table}` TO `{clickhouse.database}`.`{table}`")
                continue
            days = dict(all_rows(client, _DAYS, {"database": staged, "table": table}))
            now = dict(all_rows(client, _DAYS, {"database": clickhouse.database, "table": table}))
            if taken := [day for day in days if now.get(day) not in {None, days[day]}]:
                raise doubles(clickhouse, table, taken[0], now[taken[0]])
            for day in days.keys() - now.keys():
                client.execute(f"ALTER TABLE `{table}` REPLACE PARTITION '{day}' FROM `{staged}`.`{table}`")
        client.execute(f"DROP DATABASE IF EXISTS `{staged}` SYNC")


def days_with_rows(clickhouse: ClickHouseSettings, database: str, table: str) -> dict[str, int]:
    """Return the number of rows of each partition of a table.

    Raises:
        UnavailableError, HaltError: ClickHouse doesn't answer, or refuses.
    """
    with explained(clickhouse), connect(clickhouse, database="") as client:
        return dict(all_rows(client, _DAYS, {"database": database, "table": table}))


def doubles(clickhouse: ClickHouseSettings, table: str, day: str, rows: int) -> DoublesError:
    """Return the error for a table that has rows of its own."""
    return DoublesError(
        f"table {clickhouse.database}.{table} at {clickhouse.address} has {rows:,} rows of {day}, which a restore "
        "would double; expected none: restore into another database, compare, and fill with `chimera replay`, or "
        f"drop the day first: ALTER TABLE {table} DROP PARTITION '{day}'"
    )


def tables_of(clickhouse: ClickHouseSettings, database: str) -> dict[str, int]:
    """Return the tables of a database with their numbers of rows; none if there is no database.

    Raises:
        UnavailableError, HaltError: ClickHouse doesn't answer, or refuses.
    """
    with explained(clickhouse), connect(clickhouse, database="") as client:
        return {name: rows or 0 for name, rows in all_rows(client, _THERE, {"database": database})}


def kept_tables(clickhouse: ClickHouseSettings) -> tuple[str, ...]:
    """Return the tables about the database itself that a restore in place leaves as they are."""
    return tuple(sorted(_OWN & tables_of(clickhouse, clickhouse.database).keys()))


def _finished(clickhouse: ClickHouseSettings, operation: str, progress: Callable[[int], None]) -> bool:
    """Wait for the end of a restore that a killed process began; True if it brought all."""
    if look(clickhouse, operation).running:
        try:
            follow(clickhouse, operation, "restore of a killed process", progress)
        except HaltError:
            return False
    return look(clickhouse, operation).status == RESTORED


def _drop(clickhouse: ClickHouseSettings, database: str, tables: Sequence[str]) -> None:
    with explained(clickhouse), connect(clickhouse, database="") as client:
        for table in tables:
            client.execute(f"DROP TABLE IF EXISTS `{database}`.`{table}` SYNC")
