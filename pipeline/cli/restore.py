"""`chimera restore`: the tables as they were at a moment."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
import orjson

from pipeline.catalog import load_catalog
from pipeline.cli.progress import progress_bar
from pipeline.cli.replay_output import print_left_hours
from pipeline.config import load_settings
from pipeline.errors import ConfigError
from pipeline.operations.backup.exchange import check_exchangeable, exchange
from pipeline.operations.backup.put_back import check_stopped
from pipeline.operations.backup.recovery import Recovered, recover
from pipeline.operations.backup.recovery_plan import RecoveryPlan, plan_recovery
from pipeline.operations.backup.restore import check_tables_in

_EPILOG = """
\b
Examples:
  chimera restore --to 2026-11-28T14:05:00Z                  # the plan
  chimera restore --to 2026-11-28T14:05:00Z --execute        # into <database>_recovered
  chimera restore --to 2026-11-28T14:05:00Z --into at_five_past_two --execute
  chimera restore --to 2026-11-28T14:05:00Z --in-place --execute

\b
Exit codes:
  0   recovered, or the plan was shown
  1   no backup and no log lead to the moment, or ranges are lost; the database
      has tables already; in place, and workers run; or rows of days with rows
      of unknown origin were left out
  2   the options are wrong
  69  Kafka or ClickHouse doesn't answer, or the workers haven't committed the
      moment's records yet: run it again, it goes on
  70  Kafka or ClickHouse refuses, or a topic or table is missing
  78  a setting, topics.yaml or a name is wrong
"""


class MomentType(click.ParamType):
    """A time in ISO 8601 in the past; UTC if it has no offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time in UTC."""
        try:
            time = datetime.fromisoformat(value)
            time = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"expected a time such as 2026-11-28T14:05:00Z, got {value!r}", param, ctx)
        if time > datetime.now(UTC):
            self.fail(f"expected a time in the past, got {value!r}", param, ctx)
        return time


@click.command(epilog=_EPILOG)
@click.option("--to", "time", type=MomentType(), required=True, metavar="TIME", help="The moment, exclusive; ISO 8601.")
@click.option("--into", metavar="DATABASE", help="Database that gets the tables.  [default: <database>_recovered]")
@click.option("--backup", "name", default="", metavar="NAME", help="Backup to begin with.  [default: the best one]")
@click.option("--in-place", is_flag=True, help="Exchange the live tables for the recovered ones; no worker may run.")
@click.option("--allow-lost", is_flag=True, help="Recover without ranges that neither backup nor log has.")
@click.option("--despite-unknown", is_flag=True, help="Fill days that have rows of unknown origin, too.")
@click.option("--wait", "wait_seconds", type=click.FloatRange(min=0), default=60.0, show_default=True,
              metavar="SECONDS", help="Time that the workers have to commit the moment's records.")  # fmt: skip
@click.option("--execute", is_flag=True, help="Recover; without it, only the plan is shown.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def restore(
    context: click.Context, /, *, time: datetime, into: str | None, name: str, in_place: bool, allow_lost: bool,
    despite_unknown: bool, wait_seconds: float, execute: bool, as_json: bool,
) -> None:  # fmt: skip
    """Recover the tables as they were at a moment.

    Restores the newest backup before the moment beside the live tables, deletes the rows of records from the moment on,
    and fills in the missing rows before it from the topics. The broker's timestamps of the records define the moment.
    Workers may run meanwhile, except with --in-place. If it is killed, run it again: it goes on. See docs/backup.md.
    """
    settings = load_settings()
    catalog = load_catalog(settings)
    if into == settings.clickhouse.database:
        raise ConfigError(f"--into {into} is the configured database; expected another one, maybe with --in-place")
    if in_place:
        check_exchangeable(settings.clickhouse)
        check_stopped(settings)
    plan = plan_recovery(settings, catalog, time, into or f"{settings.clickhouse.database}_recovered", name)
    if not execute:
        click.echo(orjson.dumps(_facts_of_plan(plan))) if as_json else _print_plan(plan)
        context.exit(1 if plan.start.lost and not allow_lost else 0)
    if plan.start.lost and not allow_lost:
        _print_lost(plan)
        context.exit(1)
    if in_place and plan.exchanging:
        exchange(settings, plan.into, check_tables_in(plan.start.record, (), ()))
        click.echo(f"{time.isoformat()} is in place; the tables of before are in database {plan.into}", err=True)
        return
    with _steps() as report:
        done = recover(
            settings, catalog, plan, despite_unknown=despite_unknown, wait_seconds=wait_seconds, report=report
        )
    if in_place:
        exchange(settings, plan.into, check_tables_in(plan.start.record, (), ()))
    click.echo(orjson.dumps(_facts(plan, done))) if as_json else _print(plan, done, in_place=in_place)
    context.exit(0 if done.whole else 1)


def _facts_of_plan(plan: RecoveryPlan) -> dict[str, Any]:
    return {
        "to": plan.time.isoformat(),
        "backup": plan.start.record.name,
        "after": plan.start.after,
        "into": plan.into,
        "resumed": plan.resumed,
        "to_read": plan.to_read,
        "offsets": {cut.topic: {str(number): end for number, end in cut.ends.items()} for cut in plan.cuts.values()},
        "lost": [
            {"topic": lost.topic, "partition": lost.partition, "from": lost.offsets.start, "to": lost.offsets.stop}
            for lost in plan.start.lost
        ],
    }


def _facts(plan: RecoveryPlan, done: Recovered) -> dict[str, Any]:
    return {
        **_facts_of_plan(plan),
        "deleted": done.deleted,
        "inserted": done.inserted,
        "rows": done.rows,
        "doubled": done.doubled,
        "too_new": done.too_new,
        "withheld": done.withheld,
        "gone": done.gone,
        "closed_before": done.closed_before,
        "seconds": round(done.seconds, 3),
    }


def _print_plan(plan: RecoveryPlan) -> None:
    record = plan.start.record
    click.echo(f"Moment: {plan.time.isoformat()}, by the broker's timestamps")
    for cut in plan.cuts.values():
        ends = ", ".join(f"{number}: {end:,}" for number, end in cut.ends.items())
        click.echo(f"{cut.topic}: offsets below {ends}")
    what = "after it: rows that are too new go" if plan.start.after else "before it"
    click.echo(f"Backup: {record.name}, {what}; {plan.to_read:,} offsets to read from the topics")
    click.echo(f"Into: database {plan.into}{' (goes on with a recovery to this moment)' if plan.resumed else ''}")
    _print_lost(plan)
    click.echo("Nothing was changed; add --execute to recover.", err=True)


def _print_lost(plan: RecoveryPlan) -> None:
    for lost in plan.start.lost:
        click.echo(f"Lost: {lost}: newer than the backup, and deleted from the log", err=True)
    if plan.start.lost:
        click.echo("Retention has passed beyond the backup's offsets; --allow-lost recovers the rest.", err=True)


def _print(plan: RecoveryPlan, done: Recovered, *, in_place: bool) -> None:
    where = "in place; the tables of before are in" if in_place else "in"
    click.echo(
        f"{plan.time.isoformat()} recovered {where} database {plan.into}: {done.deleted:,} rows were too new, "
        f"{done.inserted:,} filled in, in {done.seconds:.1f} s"
    )
    for table, rows in sorted(done.rows.items()):
        click.echo(f"{table}: {rows:,} rows")
    if done.closed_before is not None:
        until = datetime.fromtimestamp(done.closed_before * 3600, UTC)
        click.echo(f"session_stats: the hours before {until:%Y-%m-%d %H:%M} UTC, which were closed")
    print_left_hours(done.followed)
    for lost in (*map(str, plan.start.lost), *done.gone):
        click.echo(f"Lost: {lost}")
    if done.withheld:
        click.echo(
            f"{done.withheld:,} rows of days with rows of unknown origin weren't filled in; see --despite-unknown"
        )
    if done.doubled or done.too_new:
        click.echo(f"Wrong: {done.doubled:,} rows doubled, {done.too_new:,} too new")


@contextmanager
def _steps() -> Iterator[Callable[[str, int], None]]:
    """Show the step that is under way, and how much of it is done."""
    with progress_bar() as bars:
        task = bars.add_task("", total=None)
        yield lambda what, done: bars.update(task, description=what, completed=done)
