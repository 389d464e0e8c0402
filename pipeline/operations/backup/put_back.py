"""Plan and make a restore of a backup as it is, beside or in place."""

from collections.abc import Callable, Sequence

from pipeline.config import ClickHouseSettings, Settings
from pipeline.errors import ChimeraError, ConfigError
from pipeline.kafka.topics import TopicAdmin
from pipeline.operations.backup.manifest import TABLE, Manifest, chain_of
from pipeline.operations.backup.restore import (
    DoublesError,
    Restoration,
    bring,
    check_tables_in,
    days_with_rows,
    doubles,
    kept_tables,
    move_in,
    tables_of,
)

_STAGED, _BESIDE = "_restoring", "_restored"


class RunningError(ChimeraError):
    """Workers run, so tables can't be restored in place; nothing was changed."""


def plan_restore(
    settings: Settings, name: str, tables: Sequence[str], days: Sequence[str], *, into: str | None, in_place: bool
) -> Restoration:
    """Check a restore; changes nothing.

    Args:
        settings: both servers.
        name: name of a backup.
        tables: tables of it; empty for all.
        days: days of them; empty for all.
        into: other database to restore into; None for the default one.
        in_place: True for the configured database.

    Raises:
        ConfigError: the backup isn't known, isn't whole, or lacks a table; or the options contradict each other.
        DoublesError: rows would be doubled.
        RunningError: in place, and workers run.
        UnavailableError, HaltError: a server doesn't answer, or refuses.
    """
    clickhouse, manifest = settings.clickhouse, Manifest(settings.clickhouse)
    record = manifest.record(name)
    chosen = check_tables_in(record, tables, days)
    target = _target(clickhouse, into, in_place=in_place)
    kept = kept_tables(clickhouse) if in_place else ()
    chain = chain_of(name, manifest.records())
    last = manifest.restore_of(clickhouse.database + _STAGED if in_place else target)
    resumed = last.get("backup") == name and last.get("tables") == sorted(set(chosen) - set(kept))
    plan = Restoration(record, chain, chosen, tuple(days), target, in_place, kept, resumed)
    if in_place:
        check_stopped(settings)
        _check_everywhere(clickhouse, chosen)
        if not (resumed and tables_of(clickhouse, clickhouse.database + _STAGED)):
            _check_empty(clickhouse, plan)
    elif not resumed and (taken := sorted(set(tables_of(clickhouse, target)) & set(chosen))):
        raise DoublesError(
            f"database {target} at {clickhouse.address} has a table {taken[0]} already, whose rows a restore would "
            f"double; expected none: name another database with --into, or drop this one: DROP DATABASE {target}"
        )
    return plan


def put_back(settings: Settings, plan: Restoration, progress: Callable[[int], None] = lambda _: None) -> None:
    """Make a restore, or go on with one that was killed.

    Raises:
        DoublesError: tables or rows have come meanwhile.
        UnavailableError, HaltError: ClickHouse doesn't answer, refuses, or the restore failed.
    """
    if not plan.in_place:
        bring(settings, plan.record, plan.tables, plan.days, plan.into, progress=progress)
        return
    staged = settings.clickhouse.database + _STAGED
    chosen = [table for table in plan.tables if table not in plan.kept]
    bring(settings, plan.record, chosen, plan.days, staged, progress=progress)
    move_in(settings.clickhouse, staged, chosen, plan.kept)


def _target(clickhouse: ClickHouseSettings, into: str | None, *, in_place: bool) -> str:
    """Return the database to restore into."""
    if in_place and into:
        raise ConfigError("--into and --in-place contradict each other; expected one of them")
    target = clickhouse.database if in_place else into or clickhouse.database + _BESIDE
    if not in_place and target == clickhouse.database:
        raise ConfigError(f"--into {target} is the configured database; expected another one, or --in-place")
    return target


def _check_everywhere(clickhouse: ClickHouseSettings, tables: Sequence[str]) -> None:
    """Check that no table would be created at one server of a cluster alone."""
    missing = sorted(set(tables) - tables_of(clickhouse, clickhouse.database).keys())
    if clickhouse.cluster and missing:
        raise ConfigError(
            f"database {clickhouse.database} at {clickhouse.address}: no table {missing[0]}, and a restore would make "
            f"it at this server of cluster {clickhouse.cluster} alone; expected it to be there, empty: create it with "
            "`chimera migrate`, or by its definition ON CLUSTER"
        )


def check_stopped(settings: Settings) -> None:
    """Check that no worker runs: it would insert into the tables that are being replaced.

    Raises:
        RunningError: the group has members.
        UnavailableError, HaltError: Kafka doesn't answer, or refuses.
    """
    if members := TopicAdmin(settings.kafka).members(settings.kafka.group_id):
        raise RunningError(
            f"group {settings.kafka.group_id} has {len(members)} members, such as {members[0]}; expected none for a "
            "restore in place: stop the workers, or restore beside"
        )


def _check_empty(clickhouse: ClickHouseSettings, plan: Restoration) -> None:
    """Check that the tables have no rows of the days to restore."""
    for table in plan.tables:
        if table in {*plan.kept, TABLE}:
            continue
        rows = days_with_rows(clickhouse, clickhouse.database, table)
        for day in sorted(rows):
            if rows[day] and (not plan.days or day in plan.days):
                raise doubles(clickhouse, table, day, rows[day])
