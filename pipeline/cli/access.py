"""`chimera access`: print the SQL for ClickHouse roles and grants."""

import click

from pipeline.cli.groups import Group
from pipeline.clickhouse.access import statements
from pipeline.config import load_settings


@click.group(cls=Group)
def access() -> None:
    """Print the SQL for ClickHouse roles and grants.

    \b
    Examples:
      chimera access sql               # roles, grants, limits and quotas
    """


@access.command()
def sql() -> None:
    """Print the SQL for roles, grants, limits and quotas.

    The roles are chimera_reader, chimera_writer, chimera_monitor and chimera_admin. The grants are on the database
    CHIMERA_CLICKHOUSE__DATABASE; the writer may insert into the tables of the families in topics.yaml and into
    session_stats. Connects to nothing: an administrator of the server runs the SQL, again after each update, and gives
    each user one of the roles. See docs/access.md.

    \b
    Exit codes:
      0   the SQL is printed
      78  a setting or topics.yaml is wrong

    \b
    Examples:
      chimera access sql
      chimera access sql | clickhouse-client --host clickhouse.example --secure --user admin --multiquery
    """
    settings = load_settings()
    for statement in statements(settings.clickhouse.database, settings.topics.file, settings.topics.own_file):
        click.echo(f"{statement};")
