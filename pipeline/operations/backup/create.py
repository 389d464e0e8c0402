"""Create a backup: note the committed offsets, then have the server copy the tables.

The order makes recovery exact. Rows of all records below the noted offsets are stored before the copy begins, so they
are in the backup; all others can be read from the log again.
"""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pipeline.catalog import Catalog, Family
from pipeline.clickhouse.catching_up import catch_up
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.engines import replacing_tables
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.session_stats import TABLE as SESSION_STATS
from pipeline.config import ClickHouseSettings, Settings
from pipeline.errors import ChimeraError, ConfigError
from pipeline.kafka.topics import TopicAdmin, check_topics_exist
from pipeline.operations.backup.destination import Destination
from pipeline.operations.backup.figures import Counted, Days, compare_takes, take
from pipeline.operations.backup.manifest import TABLE, BackupRecord, Manifest, Noted
from pipeline.operations.backup.operations import CREATED, UNKNOWN, OperationError, follow, look, start
from pipeline.operations.lineage.family_log import FamilyLog
from pipeline.operations.lineage.staging import is_staging
from pipeline.transport.adapter.log_reader import LogReader

_DAYS = """
SELECT DISTINCT partition FROM system.parts
WHERE database = currentDatabase() AND table IN %(tables)s AND active AND rows > 0
"""
_TABLES = "SELECT name, engine FROM system.tables WHERE database = currentDatabase() AND NOT is_temporary ORDER BY name"
_VERSIONS = "SELECT toString(version) FROM schema_versions"
_REPAIR = f"{SESSION_STATS}_repair_"

Report = Callable[[str, int], None]
"""Function that is called with the step that is under way, and with the bytes that are done."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A backup as the user asks for it."""

    full: bool | None = None
    """True for a full one, False for an incremental one, None for an incremental one if there is a base."""
    tables: tuple[str, ...] = ()
    """Tables; empty for all of the database."""
    days: tuple[str, ...] = ()
    """Days of these tables, as 2026-11-24; empty for all."""


def create(
    settings: Settings, catalog: Catalog, wish: Wish, report: Report = lambda _what, _bytes: None
) -> BackupRecord:
    """Make a backup, and return its entry.

    Args:
        settings: both servers, and the destination.
        catalog: families and the rollup.
        wish: what to back up.
        report: called meanwhile.

    Raises:
        ConfigError: a table or a base is missing.
        UnavailableError: Kafka or ClickHouse doesn't answer.
        HaltError: one of them refuses, or the copy failed; the manifest has the failure.
    """
    clickhouse, manifest = settings.clickhouse, Manifest(settings.clickhouse)
    manifest.ensure()
    settle(settings, manifest)
    tables = _tables(clickhouse, wish.tables)
    _check_days(clickhouse, wish)
    destination = Destination.configured(settings.backup)
    report("Noting offsets", 0)
    noted = _note_offsets_of(settings, catalog, tables)
    base = _base(manifest.records(), wish, tables, destination, noted)
    counted = counted_tables(catalog, noted, tables, replacing_tables(clickhouse))
    name, facts = _entry(settings, wish, tables, base, noted)
    report("Counting rows", 0)
    known = (base.figures if base else None) or {}
    before = _take(clickhouse, counted.values(), wish.days, known)
    manifest.add(name, "began", facts)
    try:
        _copy(settings, name, base, facts=facts, destination=destination, progress=partial(report, "Copying"))
        report("Counting rows", 0)
        after = _take(clickhouse, counted.values(), wish.days, before)
    except ChimeraError as error:
        manifest.add(name, "failed", {"ended_at": datetime.now(UTC).isoformat(), "error": str(error)})
        raise
    manifest.add(name, "done", _done(clickhouse, name) | {"figures": compare_takes(before, after)})
    return manifest.record(name)


def _entry(
    settings: Settings,
    wish: Wish,
    tables: Sequence[str],
    base: BackupRecord | None,
    noted: Mapping[str, Noted],
) -> tuple[str, dict[str, Any]]:
    """Return the name of a new backup, and the facts that are known before it begins."""
    now, kind = datetime.now(UTC), "incremental" if base else "full"
    database = settings.clickhouse.database
    name = f"{database}-{now:%Y%m%dT%H%M%SZ}-{kind}-{secrets.token_hex(2)}"
    return name, {
        "kind": kind,
        "database": database,
        "base": base and base.name,
        "destination": Destination.configured(settings.backup).place,
        "tables": list(tables),
        "days": list(wish.days),
        "whole": not wish.tables and not wish.days,
        "began_at": now.isoformat(),
        "group": settings.kafka.group_id,
        "topics": {family: _as_facts(each) for family, each in noted.items()},
        "migrations": _migrations(settings.clickhouse, tables),
    }


def settle(settings: Settings, manifest: Manifest) -> None:
    """Find out what became of backups whose process was killed, and add it to the manifest.

    Raises:
        UnavailableError, HaltError: ClickHouse doesn't answer, or refuses.
    """
    for record in manifest.records():
        if record.state != "running":
            continue
        state = look(settings.clickhouse, record.name)
        if state.status == CREATED:
            manifest.add(record.name, "done", _done(settings.clickhouse, record.name))
        elif state.status != UNKNOWN and not state.running:
            ended = {"ended_at": datetime.now(UTC).isoformat(), "error": state.brief_error}
            manifest.add(record.name, "failed", ended)
        elif state.status == UNKNOWN and (datetime.now(UTC) - record.began_at).total_seconds() > _START_SECONDS:
            manifest.add(record.name, "failed", {"error": "it was killed, or the server was restarted meanwhile"})


_START_SECONDS = 30.0  # from the entry to the statement


def note_offsets(settings: Settings, catalog: Catalog) -> dict[str, Noted]:
    """Return the offsets that the group has committed by now, by family.

    Raises:
        UnavailableError: Kafka doesn't answer.
        HaltError: Kafka refuses, a topic is missing, or the commits are of an earlier topic of its name.
    """
    topics = [family.topic for family in catalog.families]
    ids = TopicAdmin(settings.kafka).ids(topic.name for topic in topics)
    check_topics_exist(settings.kafka, topics, ids)
    with ThreadPoolExecutor(len(catalog.families)) as pool:
        committed = pool.map(partial(_committed, settings), catalog.families)
        return {
            family.name: Noted(family.topic.name, ids[family.topic.name], dict(sorted(offsets.items())))
            for family, offsets in zip(catalog.families, committed, strict=True)
        }


def _note_offsets_of(settings: Settings, catalog: Catalog, tables: Collection[str]) -> dict[str, Noted]:
    """Return the offsets as `note_offsets` does, when all rows below them can be seen at this server."""
    noted = note_offsets(settings, catalog)
    with explained(settings.clickhouse), connect(settings.clickhouse) as client:
        for table in tables:
            catch_up(client, table)
    return noted


def _committed(settings: Settings, family: Family) -> dict[int, int]:
    with LogReader(settings.kafka, family.topic.name) as reader:
        return FamilyLog(settings, family, reader).committed()


def counted_tables(
    catalog: Catalog, noted: Mapping[str, Noted], tables: Collection[str], replacing: Collection[str]
) -> dict[str, Counted]:
    """Return those of some tables whose rows are counted: the families' and session_stats.

    Args:
        catalog: families.
        noted: offsets that were noted, by family.
        tables: tables to choose from.
        replacing: tables whose engine replaces rows.
    """
    counted = {
        family.table: Counted(family.table, "ts", noted.get(family.name), replaces=family.table in replacing)
        for family in catalog.families
        if family.table in tables and family.name in noted
    }
    if SESSION_STATS in tables:
        counted[SESSION_STATS] = Counted(SESSION_STATS, "hour")
    return counted


def _take(
    clickhouse: ClickHouseSettings,
    counted: Collection[Counted],
    days: Sequence[str],
    known: Mapping[str, Mapping[str, Any]],
) -> dict[str, Days]:
    with explained(clickhouse), connect(clickhouse) as client:
        return {
            table.name: take(client, clickhouse.database, table, days, known.get(table.name, {})) for table in counted
        }


def _copy(
    settings: Settings,
    name: str,
    base: BackupRecord | None,
    *,
    facts: Mapping[str, Any],
    destination: Destination,
    progress: Callable[[int], None],
) -> None:
    clickhouse = settings.clickhouse
    listed = ", ".join(
        f"TABLE `{clickhouse.database}`.`{table}`{partitions(facts, table)}" for table in facts["tables"]
    )
    on = {"base_backup": Destination(base.place).of(base.name, settings.backup)} if base else {}
    statement = f"BACKUP {listed} TO {destination.of(name, settings.backup)}"
    try:
        start(clickhouse, statement, name, s3_attempts=settings.backup.s3_attempts, **on)
        follow(clickhouse, name, f"backup {name}", progress)
    except OperationError as error:
        raise OperationError(f"{error}; {destination.needs()}", error.code) from None


def partitions(facts: Mapping[str, Any], table: str) -> str:
    """Return the clause of BACKUP and RESTORE that limits a table to days; the manifest isn't limited."""
    listed = ", ".join(f"'{day}'" for day in facts["days"])
    return f" PARTITIONS {listed}" if listed and table != TABLE else ""


def _done(clickhouse: ClickHouseSettings, name: str) -> dict[str, Any]:
    state = look(clickhouse, name)
    return {"ended_at": datetime.now(UTC).isoformat(), "files": state.files, "bytes": state.size, "error": ""}


def _tables(clickhouse: ClickHouseSettings, wanted: Collection[str]) -> tuple[str, ...]:
    """Return the tables to copy, always with the manifest; tables of a replay or a repair under way are left out."""
    with explained(clickhouse), connect(clickhouse) as client:
        there = [name for name, _ in all_rows(client, _TABLES) if not (is_staging(name) or name.startswith(_REPAIR))]
    if missing := sorted(set(wanted) - set(there)):
        raise ConfigError(
            f"database {clickhouse.database} at {clickhouse.address}: no table {missing[0]!r}; expected one of "
            f"{', '.join(there)}"
        )
    return tuple(name for name in there if not wanted or name in wanted or name == TABLE)


def _check_days(clickhouse: ClickHouseSettings, wish: Wish) -> None:
    """Check that each day has rows in one of the wanted tables: an empty backup would look like a good one.

    Raises:
        ConfigError: a day has none.
    """
    if wish.days:
        with explained(clickhouse), connect(clickhouse) as client:
            there = {day for (day,) in all_rows(client, _DAYS, {"tables": tuple(wish.tables)})}
        if missing := sorted(set(wish.days) - there):
            raise ConfigError(
                f"{', '.join(wish.tables)}: {missing[0]}: expected a day with rows; `chimera storage days` lists them"
            )


def _base(
    records: Sequence[BackupRecord],
    wish: Wish,
    tables: Collection[str],
    destination: Destination,
    noted: Mapping[str, Noted],
) -> BackupRecord | None:
    """Return the newest backup that this one can build on; None for a full one."""
    if wish.full:
        return None
    for record in reversed(records):
        same_topics = all(each.topic_id == noted[name].topic_id for name, each in record.noted.items() if name in noted)
        fits = record.state == "ok" and record.place == destination.place and not record.days and same_topics
        if fits and set(record.tables) >= set(tables) - {TABLE}:
            return record
    if wish.full is False:
        raise ConfigError(
            f"no backup of these tables at {destination.place} to build an incremental one on; expected one in "
            "`chimera backup list`: run `chimera backup create --full` first"
        )
    return None


def _migrations(clickhouse: ClickHouseSettings, tables: Collection[str]) -> list[str]:
    if "schema_versions" not in tables:
        return []
    with explained(clickhouse), connect(clickhouse) as client:
        return sorted(version for (version,) in all_rows(client, _VERSIONS))


def _as_facts(noted: Noted) -> dict[str, Any]:
    return {
        "topic": noted.topic,
        "topic_id": noted.topic_id,
        "offsets": {str(number): offset for number, offset in noted.offsets.items()},
    }
