"""`chimera demo`: the whole pipeline at work on this machine, from an empty directory to answered questions."""

import os
import re
import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.catalog import load_catalog
from pipeline.cli.stack import fetch_jars
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.migrate import migrate
from pipeline.clickhouse.queries import load_queries
from pipeline.config import ENV_PREFIX, ClickHouseSettings, Settings, env_name, load_settings
from pipeline.demo import DAMAGED, Outcome, check_sessions, follow
from pipeline.devstack import Stack, WorkerProcess
from pipeline.errors import ChimeraError, ConfigError
from pipeline.kafka.topics import TopicAdmin, plan
from pipeline.rollup.verify import Report

_SHOWN_ROWS = 5
_QUERIES = (
    "ui_events_engagement",
    "session_stats_hourly",
    "session_stats_daily",
    "llm_events_cost",
    "bench_runs_models",
    "agent_runs",
    "performance_user_correlation_corrected",
    "costs",
)
_NUMBER = re.compile("Int|Float|Decimal")  # in a type of ClickHouse


class MismatchError(ChimeraError):
    """What was produced isn't what was stored and rejected together."""


@click.command()
@click.option(
    "--events", type=click.IntRange(min=1000), default=200_000, show_default=True, help="How many to produce."
)
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same events, but for their times.")
@click.option("--keep", is_flag=True, help="Leave broker, ClickHouse and worker running, and say how to stop them.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path, resolve_path=True),
    help="Data and logs, kept; must be empty.  [default: a new one, deleted at the end of a demo without --keep that "
    "succeeds]",
)
def demo(events: int, seed: int, keep: bool, directory: Path | None) -> None:
    """Run the whole pipeline on this machine, and show that it loses nothing.

    Starts a real Kafka broker, a real ClickHouse and a worker, creates topics and tables, publishes sample events of
    all six families, some of them damaged, and waits until each is stored or rejected, and until the hours that are
    over are in session_stats. Then it answers some of the specification's questions. The last line is one JSON object:
    produced, stored, rejected, rows_per_s; rows of session_stats, and how many of these differ from what follows from
    ui_events.

    However it ends, what it started is stopped, unless it succeeds and is told to leave it running.

    \b
    Exit codes:
      0   produced = stored + rejected, for every family, and session_stats follows from ui_events
      1   it isn't, or the demo was interrupted
      69  a download failed, a server doesn't start, or one of them or the worker ended
      78  the directory isn't empty, or the extra `devstack` isn't installed

    \b
    Examples:
      chimera demo
      chimera demo --events 1000000 --seed 7
      chimera demo --keep --directory /tmp/demo
    """
    if directory and directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory}: expected an empty directory, so that the counts are those of this run")
    terminal = Console(highlight=False)
    with ExitStack() as running:
        home = directory or Path(tempfile.mkdtemp(prefix="chimera-demo-"))
        if directory is None:
            running.push(partial(_discard, home))
        stack, worker, settings = _start(terminal, home, running)
        outcome = _run(terminal, settings, worker, events, seed)
        sessions = _check_sessions(terminal, settings, worker)
        _show_answers(terminal, settings.clickhouse)
        report(outcome, sessions)
        if keep:
            worker.let_go()
            stack.let_go()
            running.pop_all()
            _say_how_to_stop(home, stack, worker)


def report(outcome: Outcome, sessions: Report) -> None:
    """Print the counts as one JSON object.

    Raises:
        MismatchError: they don't add up, or session_stats isn't what follows from ui_events.
    """
    facts = {
        "produced": outcome.produced.total(),
        "stored": outcome.stored.total(),
        "rejected": outcome.rejected.total(),
        "rows_per_s": outcome.rows_per_s,
        "session_stats": sessions.rows,
        "differing": sessions.found.total(),
    }
    click.echo(orjson.dumps(facts))
    if not outcome.adds_up:
        raise MismatchError("produced isn't stored + rejected; the table says where")
    if sessions.found:
        raise MismatchError("session_stats isn't what follows from ui_events")


def _discard(home: Path, failure: type[BaseException] | None, *_: object) -> None:
    """Delete the directory, unless something failed that its logs may explain."""
    if failure in {None, KeyboardInterrupt}:
        shutil.rmtree(home, ignore_errors=True)
    else:
        click.echo(f"Data and logs stay in {home}.", err=True)


def _start(terminal: Console, home: Path, running: ExitStack) -> tuple[Stack, WorkerProcess, Settings]:
    """Start everything in `home`, until `running` ends."""
    fetch_jars()
    with _step(terminal, "Kafka and ClickHouse are up"):
        stack = running.enter_context(Stack(home))
    # Everything else goes by what is set here, and by nothing that was set outside.
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        del os.environ[name]
    os.environ.update(stack.environment)
    settings = load_settings()
    with _step(terminal, "Topics are created"):
        topics = load_catalog(settings).topics
        admin = TopicAdmin(settings.kafka)
        admin.apply(plan(topics, admin.read(topic.name for topic in topics), settings.topics.file))
    with _step(terminal, "Tables are created"):
        migrate(settings.clickhouse)
    with _step(terminal, "The worker is consuming"):
        often = {env_name("rollup", "snapshot_seconds"): "1"}  # so that what is closed is known at once
        environment = {**os.environ, **stack.login("chimera_writer"), **often}
        worker = running.enter_context(WorkerProcess(home / "worker", environment))
    return stack, worker, settings


@contextmanager
def _step(terminal: Console, done: str) -> Iterator[None]:
    began = time.monotonic()
    with terminal.status(f"{done} …"):
        yield
    terminal.print(f"[green]✓[/] {done} ({time.monotonic() - began:.1f} s)")


def _run(terminal: Console, settings: Settings, worker: WorkerProcess, events: int, seed: int) -> Outcome:
    """Show how the events come along, and in the end, however it comes, what is known of them."""
    outcome = Outcome(Counter(), Counter(), Counter(), 0)
    columns = (TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with (
            closing(follow(settings, load_catalog(settings), worker, events, seed)) as outcomes,
            Progress(*columns, console=terminal) as progress,
        ):
            published = progress.add_task("published", total=events)
            stored = progress.add_task("stored", total=events - DAMAGED)
            rejected = progress.add_task("rejected", total=DAMAGED)
            for outcome in outcomes:
                progress.update(published, completed=outcome.produced.total())
                progress.update(stored, completed=outcome.stored.total())
                progress.update(rejected, completed=outcome.rejected.total())
    finally:
        if outcome.produced:
            _show_counts(terminal, outcome)
    return outcome


def _check_sessions(terminal: Console, settings: Settings, worker: WorkerProcess) -> Report:
    """Show that the hours that are over are in session_stats, exactly."""
    with terminal.status("Hours that are over are closed …"):
        report = check_sessions(settings, load_catalog(settings), worker)
    differing = report.found.total()
    terminal.print(
        f"[green]✓[/] session_stats has {report.rows:,} rows of {report.hours} hours, each as SQL computes it"
        if not differing
        else f"[red]session_stats differs from what follows from ui_events in {differing:,} of {report.rows:,} rows[/]"
    )
    if report.open_hours:
        hours = f"{report.open_hours[0]} to {report.open_hours[-1]}" if report.open_hours[1:] else report.open_hours[0]
        terminal.print(f"  Still open, because more may come: {hours}")
    return report


def _show_counts(terminal: Console, outcome: Outcome) -> None:
    table = Table(
        title=f"What became of the events, in {outcome.seconds:.1f} s",
        caption="Rejected events are kept in <topic>.dlq.",
    )
    table.add_column("table")
    for title in ("produced", "= stored", "+ rejected", ""):
        table.add_column(title, justify="right")
    for name, produced in outcome.produced.items():
        stored, rejected = outcome.stored[name], outcome.rejected[name]
        verdict = "[green]✓[/]" if produced == stored + rejected else f"[red]{stored + rejected - produced:+,}[/]"
        table.add_row(name, f"{produced:,}", f"{stored:,}", f"{rejected:,}", verdict)
    terminal.print(table)


def _show_answers(terminal: Console, settings: ClickHouseSettings) -> None:
    """Some of the specification's questions, as it asks them."""
    queries = load_queries()
    with connect(settings) as client, explained(settings):
        for query in (queries[name] for name in _QUERIES):
            rows, columns = client.execute(query.sql, with_column_types=True)
            table = Table(title=query.title, caption=f"{len(rows)} rows" if len(rows) > _SHOWN_ROWS else None)
            for name, type_name in columns:
                table.add_column(
                    name.replace("_", "\n"),  # leaves room for values
                    justify="right" if _NUMBER.search(type_name) else "left",
                    overflow="fold",
                )
            for row in rows[:_SHOWN_ROWS]:
                table.add_row(*map(_shown, row))
            terminal.print(table)


def _shown(value: object) -> str:
    """A value as it is read at a glance: fractions with three significant digits."""
    if isinstance(value, float | Decimal):
        return f"{Decimal(f'{value:.3g}'):,f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _say_how_to_stop(home: Path, stack: Stack, worker: WorkerProcess) -> None:
    variables = " ".join(f"{name}={value}" for name, value in stack.environment.items())
    click.echo(f"Left running, with data and logs in {home}.", err=True)
    click.echo(f"To use it:   export {variables}", err=True)
    click.echo(f"To stop it:  kill {worker.pid} && chimera stack down --directory {shlex.quote(str(home))}", err=True)
