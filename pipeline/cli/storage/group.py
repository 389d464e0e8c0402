"""The group `chimera storage`, and what its commands share."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from pipeline.catalog import load_catalog
from pipeline.cli.groups import Group
from pipeline.clickhouse.client import connect, explained
from pipeline.config import Settings, load_settings
from pipeline.operations.storage.tables import Amount, StoredTable, stored_tables

F = TypeVar("F", bound=Callable[..., Any])

_UNIT = 1024.0


@click.group(cls=Group)
def storage() -> None:
    """Keep tables for years: retention, tiers, compression, single days.

    topics.yaml declares for each table when its days move to slower disks, and when they are deleted. docs/storage.md
    explains it. Every command that changes something shows first what it will do, and how much of it.

    \b
    Examples:
      chimera storage plan
      chimera storage apply
      chimera storage recompress
    """


tables_argument = click.argument("names", metavar="[TABLE]...", nargs=-1)


@contextmanager
def opened(names: Iterable[str] = ()) -> Iterator[tuple[Settings, tuple[StoredTable, ...], Any]]:
    """Yield the settings, the chosen tables and a connection; failures name the server."""
    settings = load_settings()
    tables = stored_tables(load_catalog(settings), names)
    with explained(settings.clickhouse), connect(settings.clickhouse) as client:
        yield settings, tables, client


def confirm(yes: bool) -> None:
    """Ask for a confirmation unless there is one; end the command without a change if there is none."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal for a confirmation: add --yes to make these changes")
    click.confirm("Make these changes?", abort=True, err=True)


def size_text(size: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _UNIT:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= _UNIT
    return f"{size:,.1f} TiB"


def amount_text(amount: Amount) -> str:
    """Return days, rows and bytes for people."""
    if not amount.days:
        return "nothing"
    span = amount.first if amount.first == amount.last else f"{amount.first} to {amount.last}"
    noun = "day" if amount.days == 1 else "days"
    return f"{amount.days:,} {noun}, {amount.rows:,} rows, {size_text(amount.size)} ({span})"


def amount_facts(amount: Amount) -> dict[str, Any]:
    """Return days, rows and bytes for programs."""
    return {"days": amount.days, "rows": amount.rows, "bytes": amount.size, "first": amount.first, "last": amount.last}
