"""`chimera verify`: compare the records of the log with rows and dead letters, offset by offset."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

import click
import orjson
from rich.progress import Progress as Bars
from rich.progress import TaskID

from pipeline.catalog import Catalog, Family, load_catalog
from pipeline.cli.progress import progress_bar
from pipeline.cli.times import DayType
from pipeline.cli.verify_output import facts_of, print_report
from pipeline.config import load_settings
from pipeline.operations.lineage.report import Wanted
from pipeline.operations.lineage.verify import Progress
from pipeline.operations.lineage.verify import verify as compare

_FIRST_DAY, _LAST_DAY = date(1900, 1, 1), date(2299, 12, 31)  # range of DateTime64


@click.command()
@click.argument("families", nargs=-1, metavar="[FAMILY]...")
@click.option(
    "--day",
    type=DayType(_FIRST_DAY, _LAST_DAY),
    metavar="YYYY-MM-DD",
    help="Only rows and lost records of events of this day, in UTC; or today, yesterday.  [default: all]",
)
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(["partition", "hour"]),
    help="Also show the numbers by partition, or by hour of the event; may be repeated.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Number of differences to list for each family.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def verify(
    context: click.Context, *, families: Sequence[str], day: date | None, by: Sequence[str], limit: int, as_json: bool
) -> None:
    """Check that each record is in its table once, or a dead letter.

    Compares the offsets of each partition with the coordinates of the rows and of the dead letters: from the log's
    first record up to the offset that the group has committed. So it is exact beside running workers. Reads only the
    records that are in neither. The output has offsets, hours and numbers, no content. Changes nothing. docs/verify.md
    explains the numbers.

    \b
    Exit codes:
      0   every record is in its place once, or a row without coordinates may be its row
      1   records are lost or doubled, or rows are of records that the log doesn't have
      2   the options are wrong
      69  Kafka, ClickHouse or the schema registry doesn't answer
      70  one of them refuses, or a topic, a table or a column is missing
      78  a setting, topics.yaml or a schema is wrong

    \b
    Examples:
      chimera verify
      chimera verify ui_events --day 2026-11-24 --by hour
      chimera verify --json | jq '.families[] | {family, lost, doubled}'
    """
    settings = load_settings()
    catalog = load_catalog(settings)
    wanted = Wanted(day, "hour" in by, limit)
    named = {_family(catalog, name).name for name in families}
    chosen = [family for family in catalog.families if not named or family.name in named]
    with _progress() as progress:
        reports = [compare(settings, family, wanted, progress) for family in chosen]
    if as_json:
        click.echo(orjson.dumps(facts_of(reports, wanted)))
    else:
        print_report(reports, wanted, by_partition="partition" in by)
    context.exit(1 if any(report.differs for report in reports) else 0)


def _family(catalog: Catalog, name: str) -> Family:
    for family in catalog.families:
        if name in {family.name, family.topic.name}:
            return family
    known = ", ".join(family.name for family in catalog.families)
    raise click.UsageError(f"no family {name!r}; expected one of {known}")


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show a bar for each step on a terminal; yields the function that moves it."""
    tasks: dict[str, TaskID] = {}
    with progress_bar() as bars:
        yield lambda what, done, total: _move(bars, tasks, what, completed=done, total=total)


def _move(bars: Bars, tasks: dict[str, TaskID], what: str, **numbers: Any) -> None:
    if what not in tasks:
        for finished in tasks.values():
            bars.update(finished, visible=False)
        tasks[what] = bars.add_task(what, total=None)
    bars.update(tasks[what], **numbers)
