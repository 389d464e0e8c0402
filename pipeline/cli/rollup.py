"""`chimera rollup`: is session_stats what follows from ui_events, and make it so."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from pipeline.catalog import load_catalog
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.contract import check_tables
from pipeline.config import Settings, load_settings
from pipeline.errors import ConfigError
from pipeline.rollup.audit import Audit, Difference, Hour, Kind, Values
from pipeline.rollup.horizon import Horizon, read_horizon
from pipeline.rollup.repair import HourPlan, Plan, plan
from pipeline.rollup.repair import repair as replace_day
from pipeline.rollup.verify import Report
from pipeline.rollup.verify import verify as compare

_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2106, 2, 7)  # what DateTime holds


def _as_day(_context: click.Context, _parameter: click.Parameter, value: datetime | None) -> date | None:
    day = value.date() if value else None
    if day and not _FIRST_DAY <= day <= _LAST_DAY:
        raise click.BadParameter(f"expected a day from {_FIRST_DAY} to {_LAST_DAY}, got {day}")
    return day


def _day(explanation: str, *, required: bool) -> Callable[..., Any]:
    return click.option(
        "--day",
        type=click.DateTime(["%Y-%m-%d"]),
        callback=_as_day,
        required=required,
        metavar="YYYY-MM-DD",
        help=explanation,
    )


@click.group()
def rollup() -> None:
    """Compare session_stats with ui_events, from which it is derived, and repair it.

    What the columns mean, and when an hour is closed: docs/session_stats.md.

    \b
    Examples:
      chimera rollup verify
      chimera rollup repair --day 2026-11-24
    """


@rollup.command()
@_day("Only this day; otherwise every one that either table has rows of.", required=False)
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="How many differences to list."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def verify(context: click.Context, day: date | None, limit: int, as_json: bool) -> None:
    """Compute every row of session_stats from ui_events once more, and list what differs.

    Values are compared exactly, floats bit for bit. Hours that are still open are left out, and so are days whose
    events are deleted; the output says which. Only session ids, hours and numbers are shown. Changes nothing.

    \b
    Exit codes:
      0   none differs
      1   a row differs, is missing, has no events, or is there more than once; explained by late events or not
      69  Kafka or ClickHouse doesn't answer, or the worker hasn't got so far that anything could be said
      70  one of them refuses, or lacks a topic or a table
      78  a setting or topics.yaml is wrong

    \b
    Examples:
      chimera rollup verify
      chimera rollup verify --day 2026-11-24 --limit 100
      chimera rollup verify --json | jq .unexplained
    """
    settings = load_settings()
    source, horizon = _prepare(settings)
    with (
        explained(settings.clickhouse),
        connect(settings.clickhouse) as client,
        _progress("Comparing hours") as progress,
    ):
        report = compare(Audit(client, source), horizon, day, limit, progress)
    if as_json:
        click.echo(orjson.dumps(_facts(report), option=orjson.OPT_SERIALIZE_NUMPY))
    else:
        _print(report)
    context.exit(1 if report.found else 0)


@rollup.command()
@_day("The day: a partition of session_stats.", required=True)
@click.option("--execute", is_flag=True, help="Do it; without, what would be done is shown.")
def repair(day: date, execute: bool) -> None:
    """Compute a day of session_stats from ui_events once more, and put the result in its place, in one step.

    Late events are counted then too. Hours that are still open keep the rows they have: they are the stream job's. It
    may go on meanwhile. Needs more rights than the worker has: docs/session_stats.md lists them.

    \b
    Exit codes:
      0   repaired, or there was nothing to do, or the preview was shown
      1   nothing was changed, because ui_events no longer has that day, or new rows kept coming; or the stream job
          stored rows at the very moment: the message says what to do
      69  Kafka or ClickHouse doesn't answer, or the worker hasn't got so far that anything could be said
      70  one of them refuses, or lacks a topic or a table
      78  a setting or topics.yaml is wrong

    \b
    Examples:
      chimera rollup repair --day 2026-11-24             # what it would do
      chimera rollup repair --day 2026-11-24 --execute
    """
    settings = load_settings()
    source, horizon = _prepare(settings)
    with explained(settings.clickhouse):
        with connect(settings.clickhouse) as client:
            planned = plan(Audit(client, source), horizon, day)
        _print_plan(planned)
        planned.check()
        if not planned.changes:
            click.echo(f"Nothing to repair on {day}.", err=True)
        elif execute:
            replace_day(settings.clickhouse, source, horizon, day)
            click.echo(f"Repaired {day}.", err=True)
        else:
            click.echo("Nothing was changed: add --execute to do this.", err=True)


def _prepare(settings: Settings) -> tuple[str, Horizon]:
    """The table that session_stats is derived from, and how far that is."""
    declared = load_catalog(settings).rollup
    if declared is None:
        raise ConfigError(f"{settings.topics.file}: topics: expected one with `state_of`, that of the hourly rollup")
    check_tables(settings.clickhouse, [declared.source])
    with _progress("Reading snapshots") as progress:
        return declared.source.table, read_horizon(settings, declared, progress)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal."""
    terminal = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _facts(report: Report) -> dict[str, Any]:
    """The report under the names that `--json` gives; hours as in session_stats, in seconds since 1970."""
    return {
        "hours": report.hours,
        "rows": report.rows,
        **{str(kind): report.found[kind] for kind in Kind},
        "explained": report.explained,
        "unexplained": report.unexplained,
        "late_included": report.late_included,
        "open": _extent(report.open_hours),
        "without_events": _extent(report.gone_hours),
        "listed": [
            {
                "hour": difference.hour.begins_at,
                "session_id": str(difference.session_id),
                "kind": difference.kind,
                "explained": is_explained,
                "copies": difference.copies,
                "found": difference.found and difference.found._asdict(),
                "expected": difference.expected and difference.expected._asdict(),
            }
            for difference, is_explained in report.listed
        ],
    }


def _extent(hours: list[Hour]) -> dict[str, int | None]:
    return {
        "hours": len(hours),
        "rows": sum(hour.rows for hour in hours),
        "first": hours[0].begins_at if hours else None,
        "last": hours[-1].begins_at if hours else None,
    }


def _print(report: Report) -> None:
    terminal = Console(highlight=False)
    if report.listed:
        terminal.print(_table(report))
    counts = ", ".join(f"{report.found[kind]:,} {kind}" for kind in Kind)
    click.echo(f"{report.rows:,} rows of {report.hours:,} hours checked: {counts}")
    if report.found:
        click.echo(f"Late events explain {report.explained:,} of {report.found.total():,} differences.")
    if report.late_included:
        click.echo(f"{report.late_included:,} rows have late events in them, from a repair.")
    for hours, why in (
        (report.open_hours, "are still open"),
        (report.gone_hours, "are of days before the first event that ui_events has"),
    ):
        if hours:
            rows = sum(hour.rows for hour in hours)
            click.echo(f"Not compared: {len(hours):,} hours, {hours[0]} to {hours[-1]} UTC, {rows:,} rows: they {why}.")


def _table(report: Report) -> Table:
    hidden = report.found.total() - len(report.listed)
    table = Table(
        title=f"The first {len(report.listed):,} of {report.found.total():,} differences" if hidden else "Differences",
        title_justify="left",
    )
    for heading in ("hour (UTC)", "session_id", "", "column", "session_stats", "ui_events", "late"):
        table.add_column(heading, overflow="fold", justify="right" if heading.endswith(("stats", "events")) else "left")
    for difference, is_explained in report.listed:
        names, found, expected = _cells(difference)
        late = "explained" if is_explained else ""
        table.add_row(str(difference.hour), str(difference.session_id), difference.kind, names, found, expected, late)
    return table


def _cells(difference: Difference) -> tuple[str, str, str]:
    """What differs: names of columns, and both values of each."""
    found, expected = difference.found, difference.expected
    if difference.kind is Kind.SPLIT or found is None or expected is None:
        return "rows", str(difference.copies), str(int(expected is not None))
    names = found.differing(expected)
    return "\n".join(names), _lines(found, names), _lines(expected, names)


def _lines(values: Values, names: tuple[str, ...]) -> str:
    return "\n".join(str(getattr(values, name)) for name in names)


def _print_plan(planned: Plan) -> None:
    table = Table(title=f"session_stats on {planned.day}", title_justify="left")
    table.add_column("hour (UTC)")
    for heading in ("kept", "changed", "added", "removed"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for hour in planned.hours:
        counts = (hour.kept, hour.changed, hour.added, hour.removed)
        table.add_row(str(hour.hour), *(f"{count:,}" for count in counts), _remark(hour))
    if planned.hours:
        Console(highlight=False).print(table)


def _remark(hour: HourPlan) -> str:
    if hour.open:
        return "still open"
    return f"{hour.late:,} for late events" if hour.late else ""
