"""`chimera rollup`: compare session_stats with ui_events, and repair it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import click
import orjson
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from pipeline.catalog import load_catalog
from pipeline.cli.groups import Group
from pipeline.cli.rollup_output import facts_of, print_plan, print_report
from pipeline.cli.terminal import terminal
from pipeline.cli.times import DayType
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.contract import check_tables
from pipeline.clickhouse.row_policies import check_row_policies
from pipeline.clickhouse.session_stats import TABLE
from pipeline.config import Settings, load_settings
from pipeline.errors import ConfigError
from pipeline.rollup.audit import Audit
from pipeline.rollup.horizon import Horizon, read_horizon
from pipeline.rollup.repair import plan
from pipeline.rollup.repair import repair as replace_day
from pipeline.rollup.verify import Report
from pipeline.rollup.verify import verify as compare

_SNAPSHOT_SECONDS = 3.0  # the worker writes a snapshot of late events about a second after they came
_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2106, 2, 7)  # range of DateTime


def _day(explanation: str, *, required: bool) -> Callable[..., Any]:
    return click.option(
        "--day",
        type=DayType(_FIRST_DAY, _LAST_DAY),
        required=required,
        metavar="YYYY-MM-DD",
        help=explanation,
    )


@click.group(cls=Group)
def rollup() -> None:
    """Verify and repair session_stats.

    session_stats is derived from ui_events. docs/session_stats.md defines its columns, and says when an hour closes.

    \b
    Examples:
      chimera rollup verify
      chimera rollup repair --day 2026-11-24
    """


@rollup.command()
@_day("Day to compare.  [default: every day that either table has rows of]", required=False)
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Number of differences to list."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def verify(context: click.Context, day: date | None, limit: int, as_json: bool) -> None:
    """Compare session_stats with ui_events.

    Computes every row from ui_events again and lists the rows that differ. Values must be equal, floats bit for bit.
    Open hours and days whose events are deleted are left out, and the output names them. The output has session ids,
    hours and numbers only. Changes nothing.

    \b
    Exit codes:
      0   no row differs
      1   rows differ, are missing, have no events or exist more than once,
          explained by late events or not
      69  Kafka or ClickHouse doesn't answer, or the worker must catch up first
      70  Kafka or ClickHouse refuses, or a topic or table is missing
      78  a setting or topics.yaml is wrong

    \b
    Examples:
      chimera rollup verify
      chimera rollup verify --day 2026-11-24 --limit 100
      chimera rollup verify --json | jq .unexplained
    """
    settings = load_settings()
    report = _compare(settings, day, limit)
    if report.unexplained and report.uncounted:
        time.sleep(_SNAPSHOT_SECONDS)
        report = _compare(settings, day, limit)
    if as_json:
        click.echo(orjson.dumps(facts_of(report), option=orjson.OPT_SERIALIZE_NUMPY))
    else:
        print_report(report)
    context.exit(1 if report.found else 0)


@rollup.command()
@_day("Day to repair: a partition of session_stats.", required=True)
@click.option("--execute", is_flag=True, help="Make the repair; without it, only its plan is shown.")
def repair(day: date, execute: bool) -> None:
    """Rebuild one day of session_stats from ui_events.

    Replaces the day's rows in one step; late events are included. Open hours keep their rows, because the worker still
    writes them. The worker may keep running. A repair needs more rights than the worker: see docs/session_stats.md.

    \b
    Exit codes:
      0   repaired, nothing to repair, or the plan was shown
      1   nothing was changed, because ui_events has lost that day or new rows
          kept coming; or the worker stored rows during the replacement: the
          message says what to do
      69  Kafka or ClickHouse doesn't answer, or the worker must catch up first
      70  Kafka or ClickHouse refuses, or a topic or table is missing
      78  a setting or topics.yaml is wrong

    \b
    Examples:
      chimera rollup repair --day 2026-11-24             # shows the plan
      chimera rollup repair --day 2026-11-24 --execute
    """
    settings = load_settings()
    source, horizon = _prepare(settings)
    with explained(settings.clickhouse):
        with connect(settings.clickhouse) as client:
            planned = plan(Audit(client, source), horizon, day)
        print_plan(planned)
        planned.check()
        if not planned.changes:
            click.echo(f"Nothing to repair on {day}.", err=True)
        elif execute:
            replace_day(settings.clickhouse, source, horizon, day)
            click.echo(f"Repaired {day}.", err=True)
        else:
            click.echo("Nothing was changed; add --execute to make this repair.", err=True)


def _compare(settings: Settings, day: date | None, limit: int) -> Report:
    source, horizon = _prepare(settings)
    with (
        explained(settings.clickhouse),
        connect(settings.clickhouse) as client,
        _progress("Comparing hours") as progress,
    ):
        return compare(Audit(client, source), horizon, day, limit, progress)


def _prepare(settings: Settings) -> tuple[str, Horizon]:
    """Return the table of the events, and the horizon of session_stats."""
    declared = load_catalog(settings).rollup
    if declared is None:
        raise ConfigError(
            f"{settings.topics.file}: topics: expected a topic with `state_of`, for the state of the hourly rollup"
        )
    check_tables(settings.clickhouse, [declared.source])
    check_row_policies(settings.clickhouse, [declared.source.table, TABLE])
    with _progress("Reading snapshots") as progress:
        return declared.source.table, read_horizon(settings, declared, progress)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal; yields the function that moves it."""
    console = terminal(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
