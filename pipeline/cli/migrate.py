"""`chimera migrate`: create or update the database and its tables."""

from pathlib import Path

import click

from pipeline.clickhouse.migrate import kept, pending
from pipeline.clickhouse.migrate import migrate as apply
from pipeline.config import load_settings


@click.command()
@click.option("--plan", is_flag=True, help="List the pending migrations without applying them.")
def migrate(plan: bool) -> None:
    """Create or update the database and its tables.

    Applies the pending migrations to the database CHIMERA_CLICKHOUSE__DATABASE, and prints their names. It may be
    repeated, and may run on several hosts at once. A table whose deduplication window is as wide already keeps it: the
    line of that migration says so.

    \b
    Examples:
      chimera migrate --plan           # list pending migrations
      chimera migrate
      CHIMERA_CLICKHOUSE__DATABASE=staging chimera migrate

    \b
    Exit codes:
      0   the database is up to date; with --plan: the list is complete
      69  ClickHouse doesn't answer, or a server of the cluster is away
      70  ClickHouse refused the login or a statement, or a newer version has
          migrated the database
      78  a setting is wrong, or a migration has a wrong name, has more than one
          statement, or was edited after it was applied
    """
    settings = load_settings().clickhouse
    where = f"database {settings.database} at {settings.address}"
    planned = pending(settings)
    unchanged = kept(settings, planned)
    if plan:
        _print("pending", planned, unchanged, nothing=f"{where} is up to date")
    else:
        _print("applied", apply(settings), unchanged, nothing=f"{where} was up to date")


def _print(what: str, files: tuple[Path, ...], unchanged: tuple[Path, ...], nothing: str) -> None:
    for file in files:
        click.echo(f"{what}  {file.name}{'  (the table keeps its wider window)' if file in unchanged else ''}")
    if not files:
        click.echo(nothing)
