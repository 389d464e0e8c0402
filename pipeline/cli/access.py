"""`chimera access`: who may do what in ClickHouse, as SQL."""

import click

from pipeline.clickhouse.access import statements
from pipeline.config import load_settings


@click.group()
def access() -> None:
    """Show who may do what in ClickHouse.

    \b
    Examples:
      chimera access sql               # roles, limits and quotas
    """


@access.command()
def sql() -> None:
    """Print the SQL that makes the roles chimera_reader, chimera_writer and chimera_admin, with limits and quotas.

    Connects to nothing. Whoever may manage access on the server runs it, again after an update, and gives each user one
    of the roles: docs/access.md. The grants are on the database CHIMERA_CLICKHOUSE__DATABASE; the writer may fill the
    tables of the families in topics.yaml, and session_stats.

    \b
    Exit codes:
      0   printed
      78  a setting or topics.yaml is wrong

    \b
    Examples:
      chimera access sql
      chimera access sql | clickhouse-client --host clickhouse.example --secure --user admin --multiquery
    """
    settings = load_settings()
    for statement in statements(settings.clickhouse.database, settings.topics.file):
        click.echo(f"{statement};")
