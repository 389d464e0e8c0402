"""`chimera migrate`: create the tables, or bring them up to this version."""

from pathlib import Path

import click

from pipeline.clickhouse.migrate import migrate as apply
from pipeline.clickhouse.migrate import pending
from pipeline.config import load_settings


@click.command()
@click.option("--plan", is_flag=True, help="List what would be applied, and change nothing.")
def migrate(plan: bool) -> None:
    """Create the database and its tables, or bring them up to this version.

    Applies the migrations that the database CHIMERA_CLICKHOUSE__DATABASE hasn't seen yet, and prints their names.
    Safe to repeat, and to run on several hosts at once.

    \b
    Examples:
      chimera migrate --plan           # what is pending
      chimera migrate
      CHIMERA_CLICKHOUSE__DATABASE=staging chimera migrate

    \b
    Exit codes:
      0   the database is up to date, or with --plan: could be compared
      69  ClickHouse does not answer
      70  ClickHouse refuses the login or a statement, or a newer version has migrated the database
      78  a setting is wrong, or a migration is misnamed, not one statement, or was edited after it was applied
    """
    settings = load_settings().clickhouse
    where = f"database {settings.database} at {settings.address}"
    if plan:
        _print("pending", pending(settings), nothing=f"{where} is up to date")
    else:
        _print("applied", apply(settings), nothing=f"{where} was up to date")


def _print(what: str, files: tuple[Path, ...], nothing: str) -> None:
    for file in files:
        click.echo(f"{what}  {file.name}")
    if not files:
        click.echo(nothing)
