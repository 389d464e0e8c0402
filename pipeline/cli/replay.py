"""`chimera replay`: fill a table from its topic's log."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
import orjson

from pipeline.catalog import Catalog, load_catalog
from pipeline.cli.groups import INTERRUPTED
from pipeline.cli.progress import progress_bar
from pipeline.cli.replay_options import order_of, reading
from pipeline.cli.replay_output import (
    facts_of_plan,
    facts_of_result,
    print_left_days,
    print_plan,
    print_result,
    progress_of,
)
from pipeline.clickhouse.client import explained
from pipeline.config import Settings, load_settings
from pipeline.errors import ChimeraError
from pipeline.operations.lineage.family_log import FamilyLog
from pipeline.operations.lineage.follow import Followed, follow, touched_days
from pipeline.operations.lineage.opening import open_source
from pipeline.operations.lineage.pace import Pace, limit_of
from pipeline.operations.lineage.plan import ReplayPlan, check_kept, make_plan
from pipeline.operations.lineage.replay import run, sample
from pipeline.operations.lineage.rewrite import Rewrite, Rewritten
from pipeline.operations.lineage.sources import Order, Progress, RecordSource, ignore
from pipeline.transport.garbage import collect_rarely

_EPILOG = """
\b
Examples:
  chimera replay ui_events                              # shows the plan
  chimera replay ui_events --execute
  chimera replay ui_events --from 2026-11-24 --to 2026-11-25 --execute
  chimera replay ui_events --from 3:41000 --to 3:42000 --execute
  chimera replay ui_events --into ui_events_again --execute
  chimera replay ui_events --day 2026-11-24 --execute
  chimera replay ui_events --source-topic ui_events.old --execute
  chimera replay ui_events --from-file ui_events.avro --execute
  chimera replay ui_events --max-rows-per-second @rate.txt --execute

\b
Exit codes:
  0    filled, made anew, nothing to fill, or the plan was shown
  1    rows were left out: retention deleted records while it ran, or a day
       has rows of unknown origin; or nothing was changed, because rows would
       be removed, or because another replay of the table runs
  2    the options are wrong
  65   a file is damaged or of another schema, or a topic is no source for the
       table; nothing was changed
  69   Kafka or ClickHouse doesn't answer: run it again, it goes on
  70   Kafka or ClickHouse refuses, or a topic or table is missing
  78   a setting, topics.yaml or a schema is wrong
  130  interrupted: run it again, it goes on
"""


@click.command(epilog=_EPILOG)
@click.argument("family")
@reading
@click.option("--execute", is_flag=True, help="Insert the rows; without it, only the plan is shown.")
@click.option(
    "--max-rows-per-second",
    "limit",
    metavar="N|@FILE",
    help="Most records to read in a second: a number, or a file with one, which may be changed meanwhile.",
)
@click.option(
    "--no-rollup",
    is_flag=True,
    help="Leave session_stats as it is after a replay of its source; say what is left to do.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def replay(
    context: click.Context,
    /,
    *,
    family: str,
    limit: str | None,
    execute: bool,
    no_rollup: bool,
    as_json: bool,
    **conditions: Any,
) -> None:
    """Fill the table of FAMILY with rows that it lacks, or make days of it anew.

    Reads the topic's log below the offsets that the workers have committed, and inserts the rows whose coordinates
    (topic id, partition, offset) aren't in the table. Workers may run meanwhile. It may be repeated and interrupted:
    no row is inserted twice. Records that are dead letters are left to `chimera dlq`. With --day, the rows of that day
    are made anew in a staging table, and put in the day's place in one step. --source-topic and --from-file read
    records from elsewhere. See docs/replay.md.
    """
    collect_rarely()
    settings = load_settings()
    catalog = load_catalog(settings)
    order, pace = order_of(catalog.family(family), **conditions), Pace(limit_of(limit))
    with explained(settings.clickhouse), open_source(settings, catalog, order) as source:
        with _survey_of(order) as progress:
            plan = make_plan(settings, order, source, progress)
        if not execute:
            sampled = sample(settings, plan, source)
            click.echo(orjson.dumps(facts_of_plan(plan, sampled))) if as_json else print_plan(plan, sampled)
            return
        check_kept(plan, order)
        done, ending = Rewritten(), _Ending(settings, catalog, order, plan, leave=no_rollup, as_json=as_json)
        try:
            _execute(settings, plan, order, source, done, pace=pace)
        except BaseException:
            if ending.hours(done):
                ending.tell(done, failed=True)
            raise
    ending.tell(done)
    context.exit(_exit_code(done))


def _execute(
    settings: Settings, plan: ReplayPlan, order: Order, source: RecordSource, done: Rewritten, *, pace: Pace
) -> None:
    """Fill, or make days anew; what is done is in `done`, also after a failure."""
    with _interruptible() as wanted, progress_of(plan) as report:
        if plan.dates:
            assert isinstance(source, FamilyLog)  # --day refuses other sources
            rules = {"allow_removal": order.allow_removal, "keep_unknown": order.keep_unknown}
            rewrite = Rewrite(settings, plan, source, **rules)
            rewrite.run(done, pace=pace, wanted=wanted, report=report)
        else:
            run(settings, plan, source, done.made, pace=pace, wanted=wanted, report=report)


@dataclass(frozen=True, slots=True)
class _Ending:
    """End of a replay: session_stats is brought in line, and the result is printed."""

    settings: Settings
    catalog: Catalog
    order: Order
    plan: ReplayPlan
    leave: bool
    """True to leave session_stats as it is."""
    as_json: bool

    def hours(self, done: Rewritten) -> set[int]:
        """Return the hours of rows that are in the table now, in hours since 1970."""
        if self.plan.dates and not done.swapped:
            return set()
        return done.made.counts.hours | done.filled.counts.hours

    def tell(self, done: Rewritten, *, failed: bool = False) -> None:
        """Bring session_stats in line unless something is left to replay, and print the result."""
        followed = self._follow(done, failed=failed)
        if self.as_json:
            click.echo(orjson.dumps(facts_of_result(self.plan, done, followed)))
        else:
            print_result(self.plan, done, followed)

    def _follow(self, done: Rewritten, *, failed: bool) -> list[Followed]:
        """Bring session_stats in line with the hours that were touched; say what is left to do if it can't be."""
        rollup, hours = self.catalog.rollup, self.hours(done)
        if rollup is None or rollup.source.name != self.order.family.name or self.order.into or not hours:
            return []
        why = _reason_to_leave(done, failed=failed)
        if not self.leave and not why:
            try:
                return follow(self.settings, rollup, hours)
            except ChimeraError as error:
                why = str(error)
        print_left_days(touched_days(self.settings, rollup, hours), why)
        return []


def _reason_to_leave(done: Rewritten, *, failed: bool) -> str:
    """Return the reason why hours may lack rows of this replay; empty if they lack none, or behind a damage only."""
    if failed and not done.made.damages + done.filled.damages:
        return "the replay failed before its end"
    if done.made.stopped:
        return "the replay was stopped before its end"
    return "retention deleted records before they were read" if done.made.deleted else ""


def _exit_code(done: Rewritten) -> int:
    if done.made.stopped:
        return INTERRUPTED
    return 1 if done.made.deleted or done.made.counts.withheld or done.filled.counts.withheld else 0


@contextmanager
def _survey_of(order: Order) -> Iterator[Progress]:
    """Show how much of a file is read for the plan."""
    if order.file is None:
        yield ignore
        return
    with progress_bar() as bar:
        task = bar.add_task(f"Reading {order.file.name}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _interruptible() -> Iterator[Any]:
    """Let Ctrl-C and SIGTERM end the replay after the chunks under way; a second one ends it at once."""
    stopping = threading.Event()

    def stop(number: int, _frame: Any) -> None:
        stopping.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: not stopping.is_set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
