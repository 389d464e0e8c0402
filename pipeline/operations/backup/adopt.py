"""Read the manifest out of a backup, for a server that doesn't know it."""

import secrets
from datetime import UTC, datetime
from typing import Any

from pipeline.clickhouse.client import connect, execute_again, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.operations.backup.create import settle
from pipeline.operations.backup.destination import Destination
from pipeline.operations.backup.manifest import TABLE, BackupRecord, Manifest
from pipeline.operations.backup.operations import NOT_FOUND, OperationError, follow, start

_READ = "SELECT name, at, event, facts FROM `{database}`.{table} ORDER BY at"


def adopt(settings: Settings, name: str) -> tuple[BackupRecord, ...]:
    """Add the entries of a backup's manifest that this server lacks; return all backups that it knows then.

    The backup itself is noted as made: its own copy of the manifest is older, and it could be read.

    Args:
        settings: ClickHouse and the destination.
        name: name of a backup at the configured destination.

    Raises:
        ConfigError: there is no whole backup of this name.
        UnavailableError, HaltError: ClickHouse doesn't answer, or refuses.
    """
    manifest = Manifest(settings.clickhouse)
    destination = Destination.configured(settings.backup)
    manifest.ensure()
    manifest.add_missing(_entries_in(settings, name, destination))
    if manifest.record(name).state != "ok":
        manifest.add(name, "done", {"ended_at": datetime.now(UTC).isoformat(), "error": ""})
    settle(settings, manifest)
    return manifest.records()


def _entries_in(settings: Settings, name: str, destination: Destination) -> list[tuple[Any, ...]]:
    """Return the entries of the manifest that is in a backup: name, at, event and facts."""
    clickhouse = settings.clickhouse
    scratch = f"{clickhouse.database}_adopt_{secrets.token_hex(4)}"
    database = name.rsplit("-", 3)[0]
    try:
        with explained(clickhouse), connect(clickhouse, database="") as client:
            client.execute(f"CREATE DATABASE `{scratch}`")
        source, attempts = destination.of(name, settings.backup), settings.backup.s3_attempts
        statement = f"RESTORE TABLE `{database}`.{TABLE} AS `{scratch}`.{TABLE} FROM {source}"
        start(clickhouse, statement, scratch, s3_attempts=attempts)
        follow(clickhouse, scratch, f"manifest of {name}")
        with explained(clickhouse), connect(clickhouse, database="") as client:
            rows = all_rows(client, _READ.format(database=scratch, table=TABLE))
    except OperationError as error:
        if error.code != NOT_FOUND:
            raise
        raise ConfigError(
            f"no whole backup {name} at {destination.place}; expected the name of one that has ended: {error}"
        ) from None
    finally:
        execute_again(clickhouse, f"DROP DATABASE IF EXISTS `{scratch}` SYNC")
    return [(each, at if at.tzinfo else at.replace(tzinfo=UTC), *rest) for each, at, *rest in rows]
