"""Verify a backup: restore it into a scratch database, and compare counts and checksums."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.catalog import Catalog
from pipeline.clickhouse.client import connect, execute_again, explained
from pipeline.clickhouse.engines import replacing_tables
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.table_lock import TableLock
from pipeline.config import Settings
from pipeline.errors import HaltError
from pipeline.operations.backup.create import counted_tables
from pipeline.operations.backup.destination import Destination
from pipeline.operations.backup.figures import Counted, Days, differences, take
from pipeline.operations.backup.manifest import TABLE, BackupRecord, Manifest
from pipeline.operations.backup.operations import S3_FAILED, OperationError
from pipeline.operations.backup.restore import check_tables_in, run_restore

_LEFT = "SELECT name FROM system.databases WHERE match(name, %(scratch)s)"


@dataclass(frozen=True, slots=True)
class VerifiedBackup:
    """Result of the comparison.

    Args:
        record: backup.
        rows: rows that it has, by table, those above the noted offsets too.
        differences: days whose rows aren't those of the manifest, in words, with their tables.
        unknown: True if the manifest has no figures, because the process was killed that made the backup.
    """

    record: BackupRecord
    rows: dict[str, int]
    differences: tuple[str, ...]
    unknown: bool


def verify_backup(
    settings: Settings, catalog: Catalog, record: BackupRecord, progress: Callable[[int], None] = lambda _: None
) -> VerifiedBackup:
    """Restore a backup into a scratch database, compare it with the manifest, and drop the database.

    Args:
        settings: ClickHouse and the destination's keys.
        catalog: families and the rollup.
        record: backup.
        progress: called with the number of bytes that are read.

    Raises:
        TakenError: another verification is under way.
        ConfigError: the backup isn't whole.
        UnavailableError, HaltError: ClickHouse doesn't answer, or refuses; or S3 does.
    """
    clickhouse, manifest = settings.clickhouse, Manifest(settings.clickhouse)
    tables = check_tables_in(record, (), ())
    scratch = f"{clickhouse.database}_verify_{secrets.token_hex(4)}"
    with TableLock(clickhouse, TABLE):
        _drop_left(settings)
        try:
            with explained(clickhouse), connect(clickhouse, database="") as client:
                client.execute(f"CREATE DATABASE `{scratch}`")
            run_restore(settings, record, tables, days=record.days, into=scratch, operation=scratch, progress=progress)
            counted = counted_tables(catalog, record.noted, tables, replacing_tables(clickhouse, scratch))
            found = {table.name: _figures(settings, scratch, table) for table in counted.values()}
            lines, failure = _compared(record, found), None
        except OperationError as error:
            if error.code == S3_FAILED and not _is_reached(settings, record, scratch):
                raise HaltError(f"{error}; {Destination(record.place).needs()}") from None
            found, lines, failure = {}, (f"it can't be restored: {error}",), error
        finally:
            execute_again(clickhouse, f"DROP DATABASE IF EXISTS `{scratch}` SYNC")
    facts = {"verified_at": datetime.now(UTC).isoformat(), "differences": list(lines)}
    manifest.add(record.name, "verified", facts)
    rows = {name: sum(day["rows"] + day["above"] for day in days.values()) for name, days in found.items()}
    return VerifiedBackup(record, rows, lines, unknown=record.figures is None and failure is None)


def _is_reached(settings: Settings, record: BackupRecord, scratch: str) -> bool:
    """Tell whether the destination lets the server read the backup's list of files: then some other file is gone."""
    try:
        run_restore(settings, record, [TABLE], days=(), into=scratch, operation=f"{scratch}-list", structure_only="1")
    except OperationError as error:
        return error.code != S3_FAILED
    return True


def _figures(settings: Settings, scratch: str, table: Counted) -> Days:
    with explained(settings.clickhouse), connect(settings.clickhouse, database="") as client:
        return take(client, scratch, table, (), {})


def _compared(record: BackupRecord, found: dict[str, Days]) -> tuple[str, ...]:
    expected = record.figures
    if expected is None:
        return ()
    return tuple(
        f"{table}: {line}" for table, days in found.items() for line in differences(expected.get(table, {}), days)
    )


def _drop_left(settings: Settings) -> None:
    """Drop the scratch databases that killed verifications left; call it under the lock."""
    scratch = f"^{settings.clickhouse.database}_verify_[0-9a-f]{{8}}$"
    with explained(settings.clickhouse), connect(settings.clickhouse, database="") as client:
        for (name,) in all_rows(client, _LEFT, {"scratch": scratch}):
            client.execute(f"DROP DATABASE IF EXISTS `{name}` SYNC")
