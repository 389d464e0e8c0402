"""`chimera storage days`, `drop`, `detach`, `attach` and `query`: single days of a table, and its cold ones."""

from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import click
import orjson

from pipeline.cli.columns import print_columns
from pipeline.cli.storage.group import F, amount_text, opened, size_text, storage
from pipeline.config import Settings
from pipeline.operations.storage.cold import cold_amounts, query_cold
from pipeline.operations.storage.partitions import attach_days, change_days, chosen_days, detached_days
from pipeline.operations.storage.tables import Amount, Day, StoredTable, live_tables, read_days, volumes

_DAY = click.DateTime(["%Y-%m-%d"])
_CHANGES = {"DROP": "dropped", "DETACH": "detached"}
_NOTE = (
    "note: `chimera verify` counts these rows as lost while the log has their records, and a replay of the topic "
    "stores them again"
)


def _dates(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(day.date() for day in value)
    return value.date() if isinstance(value, datetime) else value


def _span(command: F) -> F:
    """Add the options that choose days."""
    options: tuple[Callable[[F], F], ...] = (
        click.option("--day", "only", type=_DAY, callback=_dates, multiple=True, help="One day; may be repeated."),
        click.option("--from", "begin", type=_DAY, callback=_dates, help="First day."),
        click.option("--to", "end", type=_DAY, callback=_dates, help="Last day, inclusive."),
        click.option("--execute", is_flag=True, help="Make the change; without it, only its plan is shown."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@storage.command("days")
@click.argument("table")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(table: str, as_json: bool) -> None:
    """List the days of a table with their tier, rows, bytes, parts and codec, and the detached ones.

    \b
    Exit codes:
      0   listed
      69  ClickHouse doesn't answer
      70  ClickHouse refuses, or the table is missing
      78  a setting or topics.yaml is wrong, or no such table is declared

    \b
    Examples:
      chimera storage days ui_events
    """
    with opened([table]) as (settings, tables, client):
        days, detached = _days(settings, client, tables), detached_days(client, table)
    if as_json:
        listed = [day._asdict() for day in days]
        click.echo(orjson.dumps({"days": listed, "detached": [day._asdict() for day in detached]}))
        return
    rows = [("day", "tier", "codec", "parts", "rows", "size")]
    rows += [
        (day.day, day.tier, ",".join(day.codecs), f"{day.parts:,}", f"{day.rows:,}", size_text(day.size))
        for day in days
    ]
    rows += [(day.day, "detached", "", f"{day.parts:,}", "", size_text(day.size)) for day in detached]
    print_columns(rows, numbers_from=3)


@storage.command()
@click.argument("table")
@_span
def drop(table: str, only: tuple[date, ...], begin: date | None, end: date | None, execute: bool) -> None:
    """Delete days of a table for good.

    Without --execute, only the days are shown. Each day goes in one step; workers may go on.

    \b
    Exit codes:
      0   the days are deleted, or the plan was shown
      1   a replay or repair of the table is under way; nothing was changed
      2   neither --day nor --from nor --to
      69  ClickHouse doesn't answer
      70  ClickHouse refuses, or the table is missing
      78  a setting or topics.yaml is wrong, or no such table is declared

    \b
    Examples:
      chimera storage drop ui_events --to 2023-06-30
      chimera storage drop ui_events --day 2023-07-01 --execute
    """
    _change("DROP", table, only, begin, end, execute=execute)


@storage.command()
@click.argument("table")
@_span
def detach(table: str, only: tuple[date, ...], begin: date | None, end: date | None, execute: bool) -> None:
    """Take days out of a table; their files stay on the server's disk, for `chimera storage attach`.

    \b
    Exit codes:
      as for `chimera storage drop`

    \b
    Examples:
      chimera storage detach ui_events --from 2025-01-01 --to 2025-01-31 --execute
    """
    _change("DETACH", table, only, begin, end, execute=execute)


@storage.command()
@click.argument("table")
@_span
def attach(table: str, only: tuple[date, ...], begin: date | None, end: date | None, execute: bool) -> None:
    """Put days back that were detached. Refuses a day that the table has rows of: they may be the same rows.

    \b
    Exit codes:
      1   the table has rows of such a day, or a replay or repair of it is under
          way; nothing was changed
      else as for `chimera storage drop`

    \b
    Examples:
      chimera storage attach ui_events --day 2025-01-31 --execute
    """
    _require_days(only, begin, end)
    with opened([table]) as (settings, tables, client):
        as_days = [
            Day(day.day, day.partition_id, "", 0, day.size, day.parts, 0, ()) for day in detached_days(client, table)
        ]
        ids = {day.partition_id for day in chosen_days(as_days, begin=begin, end=end, only=only)}
        wanted = [day for day in detached_days(client, table) if day.partition_id in ids]
        for day in wanted:
            click.echo(f"{day.day}  {day.parts} part{'s' * (day.parts != 1)}, {size_text(day.size)}")
        if execute and wanted:
            attach_days(settings.clickhouse, client, table, wanted, _days(settings, client, tables))
    _say(execute, f"{len(wanted)} days attached", bool(wanted))


@storage.command()
@click.argument("sql")
@click.option("--from-cold", is_flag=True, required=True, help="Read the days on the cold volume, and no others.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a row.")
def query(sql: str, from_cold: bool, as_json: bool) -> None:  # noqa: ARG001 (required, so that no one reads it by mistake)
    """Run a SELECT for which the tables have their cold rows only.

    Prints to standard error how much there is to read. Parts on other disks aren't opened.

    \b
    Exit codes:
      0   the rows are printed
      1   no table has a cold volume
      69  ClickHouse doesn't answer
      70  ClickHouse refuses the query, or a table is missing
      78  a setting or topics.yaml is wrong

    \b
    Examples:
      chimera storage query --from-cold "SELECT toDate(ts) AS day, count() FROM ui_events GROUP BY day ORDER BY day"
    """
    with opened() as (settings, tables, client):
        cold = cold_amounts(settings.clickhouse, client, tables)
        for table, (_, amount) in cold.items():
            if table in sql:
                click.echo(f"cold days of {table}: {amount_text(amount)}", err=True)
        disks = {table: names for table, (names, _) in cold.items()}
        names, rows = query_cold(client, settings.clickhouse.database, disks, sql)
    if as_json:
        for row in rows:
            click.echo(orjson.dumps(dict(zip(names, row, strict=True)), default=str))
    else:
        print_columns([tuple(names), *(tuple(map(str, row)) for row in rows)])


def _change(
    change: str, table: str, only: tuple[date, ...], begin: date | None, end: date | None, *, execute: bool
) -> None:
    _require_days(only, begin, end)
    with opened([table]) as (settings, tables, client):
        days = chosen_days(_days(settings, client, tables), begin=begin, end=end, only=only)
        for day in days:
            click.echo(f"{day.day}  {day.tier:5}  {day.rows:,} rows  {size_text(day.size)}")
        click.echo(f"{table}: {amount_text(Amount.of(days))}")
        if days:
            click.echo(_NOTE, err=True)
        if execute and days:
            change_days(settings.clickhouse, client, table, change, (day.partition_id for day in days))
    _say(execute, f"{len(days)} day{'s' * (len(days) != 1)} {_CHANGES[change]}", bool(days))


def _say(execute: bool, done: str, anything: bool) -> None:
    if not anything:
        click.echo("Nothing to do.", err=True)
    elif execute:
        click.echo(f"{done}.", err=True)
    else:
        click.echo("Nothing was changed; add --execute to make this change.", err=True)


def _require_days(only: tuple[date, ...], begin: date | None, end: date | None) -> None:
    if not only and begin is None and end is None:
        raise click.UsageError("expected days: --day, --from or --to")


def _days(settings: Settings, client: Any, tables: tuple[StoredTable, ...]) -> tuple[Day, ...]:
    (table,) = tables
    live = live_tables(settings.clickhouse, client, tables)
    return read_days(client, table.name, volumes(client).get(live[table.name].policy, {}))
