"""Output of `chimera demo`: steps, tables and the counts."""

import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.table import Table

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import named_rows
from pipeline.clickhouse.queries import load_queries
from pipeline.config import ClickHouseSettings
from pipeline.devstack import MonitorProcess, Stack, WorkerProcess
from pipeline.errors import ChimeraError
from pipeline.operations.demo import Tally
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
    """Produced events aren't stored + rejected events, or session_stats is wrong."""


def report(outcome: Tally, sessions: Report) -> None:
    """Print the counts as one JSON object.

    Raises:
        MismatchError: the counts don't add up, or session_stats differs from ui_events.
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
        raise MismatchError("produced isn't stored + rejected; the table of counts shows where")
    if sessions.found:
        raise MismatchError("session_stats differs from the rows that SQL computes from ui_events")


@contextmanager
def step(terminal: Console, done: str) -> Iterator[None]:
    """Print `done` and the time that the block took."""
    began = time.monotonic()
    with terminal.status(f"{done} …"):
        yield
    terminal.print(f"[green]✓[/] {done} ({time.monotonic() - began:.1f} s)")


def show_counts(terminal: Console, outcome: Tally) -> None:
    """Print produced, stored and rejected events by table."""
    table = Table(
        title=f"What became of the events, in {outcome.seconds:.1f} s",
        caption="Rejected events are in the dead-letter topics, <topic>.dlq. The sample's producer "
        "sets the time: it makes events more slowly than the worker stores them.",
    )
    table.add_column("table")
    for title in ("produced", "= stored", "+ rejected", ""):
        table.add_column(title, justify="right")
    for name, produced in outcome.produced.items():
        stored, rejected = outcome.stored[name], outcome.rejected[name]
        verdict = "[green]✓[/]" if produced == stored + rejected else f"[red]{stored + rejected - produced:+,}[/]"
        table.add_row(name, f"{produced:,}", f"{stored:,}", f"{rejected:,}", verdict)
    terminal.print(table)


def show_answers(terminal: Console, settings: ClickHouseSettings) -> None:
    """Run some of the specification's queries, and print the first rows of each."""
    queries = load_queries()
    with connect(settings) as client, explained(settings):
        for query in (queries[name] for name in _QUERIES):
            rows, columns = named_rows(client, query.sql.rstrip(";"))
            table = Table(title=query.title, caption=f"{len(rows)} rows" if len(rows) > _SHOWN_ROWS else None)
            for name, type_name in columns:
                table.add_column(
                    name.replace("_", "\n"),  # narrow columns leave room for values
                    justify="right" if _NUMBER.search(type_name) else "left",
                    overflow="fold",
                )
            for row in rows[:_SHOWN_ROWS]:
                table.add_row(*map(_shown, row))
            terminal.print(table)


def _shown(value: object) -> str:
    """Format a value; fractions get three significant digits."""
    if isinstance(value, float | Decimal):
        return f"{Decimal(f'{value:.3g}'):,f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def say_how_to_stop(home: Path, stack: Stack, worker: WorkerProcess, monitor: MonitorProcess) -> None:
    """Print the variables that lead to the running servers, the page, and the command that stops all."""
    variables = " ".join(f"{name}={value}" for name, value in stack.environment.items())
    click.echo(f"Left running, with data and logs in {home}.", err=True)
    directory = shlex.quote(str(home))
    click.echo(f"To use it:   export {variables}", err=True)
    click.echo(f"To see it:   {monitor.url}", err=True)
    click.echo(f"Processes:   chimera stack status --directory {directory}", err=True)
    click.echo(f"To stop it:  kill {monitor.pid} {worker.pid} && chimera stack down --directory {directory}", err=True)
