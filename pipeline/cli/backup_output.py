"""Output of `chimera backup`."""

from collections.abc import Sequence
from typing import Any

import click

from pipeline.cli.columns import print_columns
from pipeline.operations.backup.manifest import BackupRecord
from pipeline.operations.backup.prune import Pruning
from pipeline.operations.backup.restore import Restoration
from pipeline.operations.backup.verify import VerifiedBackup

_MIB = 1024**2


def facts_of_record(record: BackupRecord) -> dict[str, Any]:
    """Return a backup for JSON, without its figures."""
    facts = {name: value for name, value in record.facts.items() if name != "figures"}
    return {"name": record.name, "state": record.state, **facts}


def facts_of_restoration(plan: Restoration, *, done: bool) -> dict[str, Any]:
    """Return a restore for JSON."""
    return {
        "name": plan.record.name,
        "chain": plan.chain,
        "tables": plan.tables,
        "days": plan.days,
        "into": plan.into,
        "in_place": plan.in_place,
        "kept": plan.kept,
        "resumed": plan.resumed,
        "executed": done,
    }


def print_created(record: BackupRecord) -> None:
    """Print what was made."""
    facts = record.facts
    on = f", on {record.base}" if record.base else ""
    click.echo(f"{record.name}: {facts['kind']}{on}, {_size(record)} in {facts['files']:,} files at {record.place}")
    if not record.whole:
        click.echo("It has only what it was limited to; a recovery to a moment needs one without limits.")
        return
    offsets = sum(sum(noted.offsets.values()) for noted in record.noted.values())
    click.echo(f"It has the rows of all records below the committed offsets, {offsets:,} in all.")


def print_list(records: Sequence[BackupRecord]) -> None:
    """Print a line for each backup."""
    if not records:
        click.echo("No backup is known; `chimera backup create` makes one, `chimera backup adopt` finds one again.")
        return
    rows = [("NAME", "STATE", "OF", "SIZE", "BASE", "VERIFIED")]
    rows += [
        (
            record.name,
            record.state,
            "all" if record.whole else ", ".join([*record.tables, *record.days]),
            _size(record) if "bytes" in record.facts else "",
            record.base or "",
            _verified(record),
        )
        for record in records
    ]
    print_columns(rows)
    for record in records:
        if record.state == "failed":
            click.echo(f"{record.name}: {record.facts.get('error', '')}", err=True)


def print_verified(result: VerifiedBackup) -> None:
    """Print rows and differences."""
    for table, rows in sorted(result.rows.items()):
        click.echo(f"{table}: {rows:,} rows")
    for line in result.differences:
        click.echo(f"Different: {line}")
    if result.unknown:
        click.echo("It was restored; its figures aren't known, because the process was killed that made it.")
    elif not result.differences:
        click.echo(f"{result.record.name}: each day has the count and the checksum that it was made with.")


def print_restoration(plan: Restoration, *, done: bool) -> None:
    """Print what is or will be restored."""
    verb = "Restored" if done else "To restore"
    days = f", {', '.join(plan.days)}" if plan.days else ""
    chosen = [table for table in plan.tables if table not in plan.kept]
    click.echo(f"{verb}: {', '.join(chosen)}{days} of {plan.record.name} into database {plan.into}")
    if len(plan.chain) > 1:
        click.echo(f"It builds on {', '.join(plan.chain[1:])}.")
    if plan.kept and set(plan.kept) & set(plan.tables):
        click.echo(f"Left as they are: {', '.join(sorted(set(plan.kept) & set(plan.tables)))}")
    if plan.resumed and not done:
        click.echo("A restore of the same that was begun before goes on.")
    if done:
        click.echo("Rows from the noted offsets on may be missing: `chimera replay` fills them from the topics.")
    else:
        click.echo("Nothing was changed; add --execute to restore.", err=True)


def print_pruning(plan: Pruning, commands: Sequence[str], *, executed: bool) -> None:
    """Print what becomes of each backup."""
    for record in plan.needed:
        click.echo(f"kept     {record.name}  (a kept backup builds on it)")
    for record in plan.kept:
        click.echo(f"kept     {record.name}")
    for record in plan.removed:
        click.echo(f"{'removed' if executed and not commands else 'remove':8} {record.name}")
    for command in commands:
        click.echo(f"Out of reach; run this, then prune again: {command}")
    if plan.removed and not executed:
        click.echo("Nothing was changed; add --execute to remove.", err=True)


def _size(record: BackupRecord) -> str:
    return f"{record.facts.get('bytes', 0) / _MIB:,.1f} MiB"


def _verified(record: BackupRecord) -> str:
    if "verified_at" not in record.facts:
        return ""
    return "differs" if record.facts["differences"] else str(record.facts["verified_at"])[:19]
