"""`chimera backup`: make, list, verify, restore and remove backups."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

import click
import orjson

from pipeline.catalog import load_catalog
from pipeline.cli.backup_output import (
    facts_of_record,
    facts_of_restoration,
    print_created,
    print_list,
    print_pruning,
    print_restoration,
    print_verified,
)
from pipeline.cli.groups import Group
from pipeline.cli.progress import progress_bar
from pipeline.config import Settings, load_settings
from pipeline.errors import ConfigError
from pipeline.operations.backup.adopt import adopt as read_manifest_of
from pipeline.operations.backup.create import Wish, settle
from pipeline.operations.backup.create import create as make
from pipeline.operations.backup.manifest import BackupRecord, Manifest
from pipeline.operations.backup.prune import plan_pruning, remove
from pipeline.operations.backup.put_back import plan_restore, put_back
from pipeline.operations.backup.verify import verify_backup

_EXIT_CODES = """
\b
Exit codes:
  0   done, or the plan was shown
  1   {one}
  2   the options are wrong
  69  Kafka or ClickHouse doesn't answer, or was restarted meanwhile: run it again
  70  Kafka or ClickHouse refuses, or the server failed to make or to read a backup
  78  a setting, topics.yaml or a name is wrong
"""

_TABLES = click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only this table; may be repeated.")
_DAYS = click.option(
    "--day",
    "days",
    type=click.DateTime(["%Y-%m-%d"]),
    multiple=True,
    metavar="YYYY-MM-DD",
    help="Only this day, a partition of the tables; may be repeated.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(cls=Group)
def backup() -> None:
    """Make, list, verify, restore and remove backups.

    ClickHouse itself writes them, to a disk of its own or to S3. Each one knows the offsets that the workers had
    committed before it began, so `chimera restore --to` gets from it to any moment that the topics still hold.
    docs/backup.md has the setup and worked stories.

    \b
    Examples:
      chimera backup create
      chimera backup list
      chimera backup verify
      chimera restore --to 2026-11-28T14:05:00Z
    """


@backup.command(
    epilog=_EXIT_CODES.format(one="(not used)")
    + """
\b
Examples:
  chimera backup create                        # incremental if there is a base
  chimera backup create --full
  chimera backup create --table ui_events --day 2026-11-24
"""
)
@click.option(
    "--full/--incremental", default=None, help="Kind of backup.  [default: incremental if there is one to build on]"
)
@_TABLES
@_DAYS
@_JSON
def create(*, full: bool | None, tables: Sequence[str], days: Sequence[Any], as_json: bool) -> None:
    """Make a backup beside running workers.

    Notes the committed offsets, then has ClickHouse copy the tables. An incremental backup has what its base lacks, and
    needs the base. Names are never used twice, so a backup that was killed blocks none.
    """
    if days and not tables:
        raise click.UsageError("--day needs --table: expected the tables whose day is backed up")
    settings = load_settings()
    wish = Wish(full, tuple(tables), tuple(_day(day) for day in days))
    with _steps() as report:
        record = make(settings, load_catalog(settings), wish, report)
    click.echo(orjson.dumps(facts_of_record(record))) if as_json else print_created(record)


@backup.command(
    "list",
    epilog=_EXIT_CODES.format(one="there is no backup")
    + """
\b
Examples:
  chimera backup list
  chimera backup list --json | jq '.backups[] | select(.state == "ok") | .name'
""",
)
@_JSON
@click.pass_context
def list_(context: click.Context, *, as_json: bool) -> None:
    """List backups, the oldest first, with their state and base."""
    settings = load_settings()
    manifest = Manifest(settings.clickhouse)
    settle(settings, manifest)
    records = manifest.records()
    if as_json:
        click.echo(orjson.dumps({"backups": [facts_of_record(record) for record in records]}))
    else:
        print_list(records)
    context.exit(0 if records else 1)


@backup.command(
    epilog=_EXIT_CODES.format(one="the backup can't be restored, or has other rows than it should")
    + """
\b
Examples:
  chimera backup verify                        # the newest one
  chimera backup verify chimera_metrics-20261128T140000Z-full-9c1e
"""
)
@click.argument("name", required=False)
@_JSON
@click.pass_context
def verify(context: click.Context, *, name: str | None, as_json: bool) -> None:
    """Restore a backup into a scratch database, and compare counts and checksums.

    Compares each day of the pipeline's tables with the figures that were taken when the backup was made, and drops the
    scratch database. Needs as much space as the tables.
    """
    settings = load_settings()
    record = _named(settings, name)
    with _steps() as report:
        result = verify_backup(settings, load_catalog(settings), record, lambda size: report("Restoring", size))
    if as_json:
        facts = {"name": record.name, "rows": result.rows, "differences": result.differences, "unknown": result.unknown}
        click.echo(orjson.dumps(facts))
    else:
        print_verified(result)
    context.exit(1 if result.differences or result.unknown else 0)


@backup.command(
    epilog=_EXIT_CODES.format(one="refused: rows would be doubled, or workers run")
    + """
\b
Examples:
  chimera backup restore NAME                             # the plan
  chimera backup restore NAME --execute                   # beside: into <database>_restored
  chimera backup restore NAME --table ui_events --into look --execute
  chimera backup restore NAME --table ui_events --day 2026-11-24 --in-place --execute
"""
)
@click.argument("name")
@_TABLES
@_DAYS
@click.option("--into", metavar="DATABASE", help="Database that gets the tables.  [default: <database>_restored]")
@click.option("--in-place", is_flag=True, help="Restore into the configured database; no worker may run.")
@click.option("--execute", is_flag=True, help="Restore; without it, only the plan is shown.")
@_JSON
def restore(
    *,
    name: str,
    tables: Sequence[str],
    days: Sequence[Any],
    into: str | None,
    in_place: bool,
    execute: bool,
    as_json: bool,
) -> None:
    """Restore the tables of a backup as they were.

    Restores beside the live tables by default. In place, tables and days must have no rows, which a restore would
    double. A restore that was killed goes on when the same command is run again. For a moment between two backups, see
    `chimera restore --to`.
    """
    settings = load_settings()
    plan = plan_restore(settings, name, tables, [_day(day) for day in days], into=into, in_place=in_place)
    if execute:
        with _steps() as report:
            put_back(settings, plan, lambda size: report("Restoring", size))
    if as_json:
        click.echo(orjson.dumps(facts_of_restoration(plan, done=execute)))
    else:
        print_restoration(plan, done=execute)


@backup.command(
    epilog=_EXIT_CODES.format(one="files of a backup are out of reach: the output has the commands to run")
    + """
\b
Examples:
  chimera backup prune                         # the plan
  chimera backup prune --keep-days 14 --execute
"""
)
@click.option(
    "--keep-days",
    type=click.FloatRange(min=0, max=36_500),
    default=14.0,
    show_default=True,
    help="Age up to which they are kept.",
)
@click.option("--execute", is_flag=True, help="Remove; without it, only the plan is shown.")
@_JSON
@click.pass_context
def prune(context: click.Context, *, keep_days: float, execute: bool, as_json: bool) -> None:
    """Remove old backups, and never one that a kept backup builds on.

    The newest whole backup is always kept. The files are removed if the disk is a folder of this machine, or by the
    command of CHIMERA_BACKUP__REMOVE_COMMAND.
    """
    settings = load_settings()
    manifest = Manifest(settings.clickhouse)
    settle(settings, manifest)
    plan = plan_pruning(manifest.records(), keep_days)
    commands = [command for record in plan.removed if (command := remove(settings, record))] if execute else []
    if as_json:
        groups = {"removed": plan.removed, "needed": plan.needed, "kept": plan.kept}
        facts = {what: [record.name for record in records] for what, records in groups.items()}
        click.echo(orjson.dumps({**facts, "executed": execute, "commands": commands}))
    else:
        print_pruning(plan, commands, executed=execute)
    context.exit(1 if commands else 0)


@backup.command(
    epilog=_EXIT_CODES.format(one="(not used)")
    + """
\b
Examples:
  chimera backup adopt chimera_metrics-20261128T140000Z-full-9c1e
"""
)
@click.argument("name")
@_JSON
def adopt(*, name: str, as_json: bool) -> None:
    """Read the manifest out of a backup, on a server that doesn't know it.

    After ClickHouse is lost, or to restore on another server: a backup has its own entry and those of all earlier ones.
    Its name is that of its folder on the disk or in the bucket.
    """
    settings = load_settings()
    records = read_manifest_of(settings, name)
    if as_json:
        click.echo(orjson.dumps({"backups": [facts_of_record(record) for record in records]}))
    else:
        print_list(records)


def _named(settings: Settings, name: str | None) -> BackupRecord:
    """Return a backup by name, or the newest one that is ok."""
    manifest = Manifest(settings.clickhouse)
    if name:
        return manifest.record(name)
    settle(settings, manifest)
    for record in reversed(manifest.records()):
        if record.state == "ok":
            return record
    raise ConfigError("no backup that is ok; expected one in `chimera backup list`: run `chimera backup create`")


def _day(moment: Any) -> str:
    day: date = moment.date()
    return day.isoformat()


@contextmanager
def _steps() -> Iterator[Callable[[str, int], None]]:
    """Show the step that is under way, and how much of it is done."""
    with progress_bar() as bars:
        task = bars.add_task("", total=None)
        yield lambda what, done: bars.update(task, description=what, completed=done)
