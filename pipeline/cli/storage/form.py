"""`chimera storage recompress` and `projections`: the form in which parts keep their rows."""

import click

from pipeline.cli.progress import progress_bar
from pipeline.cli.storage.group import opened, size_text, storage, tables_argument
from pipeline.operations.storage.projections import (
    PROJECTIONS,
    add_projection,
    declared,
    drop_projection,
    live_projections,
)
from pipeline.operations.storage.recompress import old_days
from pipeline.operations.storage.recompress import recompress as rewrite
from pipeline.operations.storage.tables import live_tables


@storage.command()
@tables_argument
@click.option("--execute", is_flag=True, help="Write the parts anew; without it, only the days are shown.")
def recompress(names: tuple[str, ...], execute: bool) -> None:
    """Give old parts the codecs and indexes that the table has today.

    New rows have them already, and merges give them to the others in time; old days aren't merged any more. One day
    after the other is written anew, as by a merge: rows and coordinates stay the same, and workers may go on. It needs
    free space of the largest day. It may be stopped and repeated at any time.

    \b
    Exit codes:
      0   done, nothing to do, or the plan was shown
      1   some days were merged by the server meanwhile: run it again
      69  ClickHouse doesn't answer
      70  ClickHouse refuses, or a table is missing
      78  a setting or topics.yaml is wrong, or no such table is declared

    \b
    Examples:
      chimera storage recompress
      chimera storage recompress ui_events --execute
    """
    with opened(names) as (settings, tables, client):
        live_tables(settings.clickhouse, client, tables)
        old = {table.name: days for table in tables if (days := old_days(client, table.name))}
    for table, days in old.items():
        rows, size = sum(day[2] for day in days), sum(day[3] for day in days)
        click.echo(f"{table}: {len(days)} days, {rows:,} rows, {size_text(size)} ({days[0][0]} to {days[-1][0]})")
    if not old:
        click.echo("Nothing to do: all parts have the codecs and indexes of today.", err=True)
    elif not execute:
        click.echo("Nothing was changed; add --execute to write these days anew.", err=True)
    else:
        left = before = after = 0
        with progress_bar() as progress:
            for table, days in old.items():
                for day in progress.track(days, description=table):
                    size, done = rewrite(settings.clickhouse, table, day)
                    left, before, after = left + (not done), before + day[3], after + size
                    progress.console.print(f"{table} {day[0]}: {size_text(day[3])} → {size_text(size)}")
        click.echo(f"{size_text(before)} → {size_text(after)}, {left} days left")
        click.get_current_context().exit(1 if left else 0)


@storage.command()
@click.argument("table", required=False)
@click.argument("name", required=False)
@click.option("--add", is_flag=True, help="Add the projection, and build it for old days.")
@click.option("--drop", is_flag=True, help="Drop the projection.")
def projections(table: str | None, name: str | None, add: bool, drop: bool) -> None:
    """List, add or drop the declared projections: hourly sums and quantiles for dashboards.

    A query that filters by toStartOfHour(ts) instead of ts reads a projection's hours instead of the table's rows.
    Projections cost inserts more than all else in the storage of a table: docs/storage.md has the figures. Workers may
    go on.

    \b
    Exit codes:
      0   listed, added or dropped
      1   a replay or repair of the table is under way; nothing was changed
      2   --add or --drop without a table and a name
      69  ClickHouse doesn't answer
      70  ClickHouse refuses, or a table is missing
      78  a setting or topics.yaml is wrong, or no such projection is declared

    \b
    Examples:
      chimera storage projections
      chimera storage projections ui_events hourly_user_agent --add
    """
    if (add or drop) and not (table and name):
        raise click.UsageError("expected a table and a projection's name")
    if add and drop:
        raise click.UsageError("expected either --add or --drop")
    with opened() as (settings, _, client):
        if table and name and drop:
            drop_projection(settings.clickhouse, table, name)
        if table and name and add:
            declared(table, name)
            with progress_bar() as progress:
                task = progress.add_task(f"{table} {name}", total=None)
                for done, total in add_projection(settings.clickhouse, table, name):
                    progress.update(task, completed=done, total=total)
        for each, names in PROJECTIONS.items():
            live = live_projections(client, each)
            for one in names:
                click.echo(f"{each}  {one}  {size_text(live[one]) if one in live else 'not there'}")
