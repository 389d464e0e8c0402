"""`chimera demo`: run the whole pipeline on this machine and check its result."""

import os
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.catalog import load_catalog
from pipeline.cli.demo_output import report, say_how_to_stop, show_answers, show_counts, step
from pipeline.cli.stack import fetch_jars
from pipeline.cli.terminal import terminal
from pipeline.clickhouse.migrate import migrate
from pipeline.config import ENV_PREFIX, Settings, env_name, load_settings
from pipeline.devstack import MonitorProcess, Stack, WorkerProcess
from pipeline.errors import ConfigError
from pipeline.kafka.topics import TopicAdmin, plan
from pipeline.operations.demo import DAMAGED, Tally, check_sessions, follow
from pipeline.rollup.verify import Report


@click.command()
@click.option(
    "--events",
    type=click.IntRange(min=1000),
    default=200_000,
    show_default=True,
    help="Number of sample events to publish.",
)
@click.option(
    "--seed", default=1, show_default=True, help="Random seed; the same seed gives the same events at other times."
)
@click.option(
    "--keep", is_flag=True, help="Leave Kafka, ClickHouse, worker and monitor running, and print how to stop them."
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path, resolve_path=True),
    help="Directory for data and logs; must be empty, and is kept.  [default: a new directory, deleted after a "
    "successful demo without --keep]",
)
def demo(events: int, seed: int, keep: bool, directory: Path | None) -> None:
    """Run the whole pipeline on this machine and check the result.

    Starts Kafka, ClickHouse, a worker and the monitor, whose page it names, and creates topics and tables. Publishes
    sample events of all six families, some of them damaged. Waits until every event is stored or rejected and every
    finished hour is in session_stats. Then runs some of the specification's queries. The last line is one JSON object:
    produced, stored, rejected, rows_per_s, session_stats (rows), and differing (rows that SQL computes differently).
    rows_per_s is limited by the producer of the sample; `make bench` measures the worker alone.

    The demo stops everything it has started, unless it succeeds and --keep is given.

    \b
    Exit codes:
      0   produced = stored + rejected in every family, session_stats is right
      1   the counts or session_stats are wrong, or the demo was interrupted
      69  a download failed, a server didn't start, a server or worker ended
      78  the directory isn't empty, or the extra `devstack` isn't installed

    \b
    Examples:
      chimera demo
      chimera demo --events 1000000 --seed 7
      chimera demo --keep --directory /tmp/demo
    """
    _check_empty(directory)
    fetch_jars()  # what can fail here leaves no directory behind
    console = terminal()
    with ExitStack() as running:
        home = directory or _temporary(running)
        stack, worker, settings = _start(console, home, running)
        monitor = _watch(console, home, stack, running)
        outcome = _run(console, settings, worker, events, seed)
        sessions = _check_sessions(console, settings, worker)
        show_answers(console, settings.clickhouse)
        report(outcome, sessions)
        if keep:
            for process in (monitor, worker, stack):
                process.let_go()
            running.pop_all()
            say_how_to_stop(home, stack, worker, monitor)


def _check_empty(directory: Path | None) -> None:
    if directory and directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory}: expected an empty directory, because the counts must be those of this run")


def _temporary(running: ExitStack) -> Path:
    home = Path(tempfile.mkdtemp(prefix="chimera-demo-"))
    running.push(partial(_discard, home))
    return home


def _discard(home: Path, failure: type[BaseException] | None, *_: object) -> None:
    """Delete the directory, unless the demo failed: its logs may explain the failure."""
    if failure in {None, KeyboardInterrupt}:
        shutil.rmtree(home, ignore_errors=True)
    else:
        click.echo(f"Data and logs are kept in {home}.", err=True)


def _start(console: Console, home: Path, running: ExitStack) -> tuple[Stack, WorkerProcess, Settings]:
    """Start Kafka, ClickHouse and a worker in `home`; they stop when `running` ends."""
    with step(console, "Kafka and ClickHouse are up"):
        stack = running.enter_context(Stack(home))
    # The caller's own settings must not reach this demo.
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        del os.environ[name]
    os.environ.update(stack.environment)
    settings = load_settings()
    with step(console, "Topics are created"):
        topics = load_catalog(settings).topics
        admin = TopicAdmin(settings.kafka)
        admin.apply(plan(topics, admin.read(topic.name for topic in topics), settings.topics.file))
    with step(console, "Tables are created"):
        migrate(settings.clickhouse)
    with step(console, "The worker is consuming"):
        often = {env_name("rollup", "snapshot_seconds"): "1"}  # the check at the end reads snapshots
        environment = {**os.environ, **stack.login("chimera_writer"), **often}
        worker = running.enter_context(WorkerProcess(home / "worker", environment))
    return stack, worker, settings


def _watch(console: Console, home: Path, stack: Stack, running: ExitStack) -> MonitorProcess:
    """Start the monitor, with a login that can't write, and print the address of its page."""
    environment = {**os.environ, **stack.login("chimera_monitor")}
    with step(console, "The monitor is watching"):
        monitor = running.enter_context(MonitorProcess(home / "monitor", environment))
    running.push(partial(_say_how_to_keep, monitor.url))
    console.print(f"  Look at it meanwhile: {monitor.url}")
    return monitor


def _say_how_to_keep(url: str, failure: type[BaseException] | None, *_: object) -> None:
    """Tell a person at the end where the page was."""
    if failure is None and sys.stderr.isatty():
        click.echo(f"The page was {url}; `chimera demo --keep` leaves it running.", err=True)


def _run(console: Console, settings: Settings, worker: WorkerProcess, events: int, seed: int) -> Tally:
    """Publish the events with progress bars; print the counts at the end, also after a failure."""
    outcome = Tally(Counter(), Counter(), Counter(), 0)
    columns = (TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with (
            closing(follow(settings, load_catalog(settings), worker, events, seed)) as outcomes,
            Progress(*columns, console=console) as progress,
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
            show_counts(console, outcome)
    return outcome


def _check_sessions(console: Console, settings: Settings, worker: WorkerProcess) -> Report:
    """Wait for the finished hours, and print how session_stats compares with ui_events."""
    with console.status("Waiting for the finished hours …"):
        report = check_sessions(settings, load_catalog(settings), worker)
    if differing := report.found.total():
        console.print(f"[red]{differing:,} of {report.rows:,} rows of session_stats differ from SQL over ui_events[/]")
    else:
        console.print(f"[green]✓[/] session_stats: {report.rows:,} rows of {report.hours} hours, all as in SQL")
    if report.open_hours:
        hours = f"{report.open_hours[0]} to {report.open_hours[-1]}" if report.open_hours[1:] else report.open_hours[0]
        console.print(f"  Still open, because more events may come: {hours}")
    return report
