"""`chimera demo`: the whole pipeline at work on this machine, from an empty directory to answered questions."""

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import click
import orjson
from confluent_kafka import Producer as KafkaProducer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.cli.stack import fetch_jars
from pipeline.clickhouse import connect
from pipeline.config import ENV_PREFIX, Settings, load_settings
from pipeline.devstack import Stack, WorkerProcess
from pipeline.devstack.supervisor import leave_running
from pipeline.encode import Encoder
from pipeline.errors import ChimeraError, ConfigError
from pipeline.families import Catalog, load_catalog
from pipeline.migrate import migrate
from pipeline.producer import Producer
from pipeline.queries import load_queries
from pipeline.sample import sample
from pipeline.topics import TopicAdmin, plan

_DAMAGED = 100  # of the events are cut short on purpose, so that there is something to reject
_HOURS = 24.0
_POLL_SECONDS = 0.2
_STALLED_SECONDS = 60.0
_SHOWN_ROWS = 5
_QUERIES = ("ui_events_engagement", "llm_events_cost", "bench_runs_models", "agent_runs", "costs")


class MismatchError(ChimeraError):
    """What was produced isn't what was stored and rejected together."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the events, by family, and how long it took from the first to the last."""

    produced: Counter[str]
    stored: dict[str, int]
    rejected: Counter[str]
    seconds: float

    @property
    def adds_up(self) -> bool:
        """Whether every family's events are stored or rejected, and none twice."""
        return all(count == self.stored[name] + self.rejected[name] for name, count in self.produced.items())


@click.command()
@click.option(
    "--events", type=click.IntRange(min=1000), default=200_000, show_default=True, help="How many to produce."
)
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same events, but for their times.")
@click.option("--keep", is_flag=True, help="Leave broker, ClickHouse and worker running, and their directory in place.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path, resolve_path=True),
    help="Data and logs, kept; must be empty.  [default: a new one, deleted at the end unless --keep is given]",
)
def demo(events: int, seed: int, keep: bool, directory: Path | None) -> None:
    """Run the whole pipeline on this machine, and show that it loses nothing.

    Starts a real Kafka broker, a real ClickHouse and a worker, creates topics and tables, publishes sample events of
    all six families, some of them damaged, and waits until each is stored or rejected. Then it answers some of the
    specification's questions. The last line is one JSON object: produced, stored, rejected, rows_per_s.

    \b
    Exit codes:
      0   produced = stored + rejected, for every family
      1   it isn't
      69  a download failed, or a server doesn't start
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
    with ExitStack() as cleanup:
        home = directory or Path(tempfile.mkdtemp(prefix="chimera-demo-"))
        if not (keep or directory):
            cleanup.callback(shutil.rmtree, home, ignore_errors=True)
        settings, worker = _start(terminal, home, cleanup, keep=keep)
        outcome = _run(terminal, settings, worker, events, seed)
        _show_counts(terminal, outcome)
        _show_answers(terminal, settings)
    click.echo(
        orjson.dumps(
            {
                "produced": outcome.produced.total(),
                "stored": (stored := sum(outcome.stored.values())),
                "rejected": outcome.rejected.total(),
                "rows_per_s": round(stored / outcome.seconds),
            }
        )
    )
    if not outcome.adds_up:
        raise MismatchError("produced isn't stored + rejected; the table says where")


def _start(terminal: Console, home: Path, cleanup: ExitStack, *, keep: bool) -> tuple[Settings, WorkerProcess]:
    """Start everything in `home`; it ends with us, or is left running."""
    fetch_jars()
    with _step(terminal, "Kafka and ClickHouse are up"):
        stack = leave_running(home, {}) if keep else cleanup.enter_context(Stack(home))
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
    worker = WorkerProcess(home / "worker", dict(os.environ))
    with _step(terminal, "The worker is consuming"):
        if keep:
            process = worker.leave()
        else:
            cleanup.enter_context(worker)
    if keep:
        variables = " ".join(f"{name}={value}" for name, value in stack.environment.items())
        cleanup.callback(click.echo, f"To stop it:  kill {process} && chimera stack down --directory {home}")
        cleanup.callback(click.echo, f"To use it:   export {variables}")
        cleanup.callback(click.echo, f"\nLeft running, with data and logs in {home}.")
    return settings, worker


@contextmanager
def _step(terminal: Console, done: str) -> Iterator[None]:
    began = time.monotonic()
    with terminal.status(f"{done} …"):
        yield
    terminal.print(f"[green]✓[/] {done} ({time.monotonic() - began:.1f} s)")


def _run(terminal: Console, settings: Settings, worker: WorkerProcess, events: int, seed: int) -> Outcome:
    """Publish, and watch until every event is stored or rejected, or nothing happens any more."""
    catalog = load_catalog(settings)
    produced: Counter[str] = Counter()
    columns = (TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    began = changed = time.monotonic()
    done = 0
    with (
        connect(settings.clickhouse) as client,
        ThreadPoolExecutor(1) as thread,
        Progress(*columns, console=terminal) as progress,
    ):
        published = progress.add_task("published", total=events)
        stored = progress.add_task("stored", total=events - _DAMAGED)
        rejected = progress.add_task("rejected", total=_DAMAGED)
        publishing = thread.submit(_publish, settings, catalog, events, seed, produced)
        while done < events and time.monotonic() - changed < _STALLED_SECONDS:
            time.sleep(_POLL_SECONDS)
            if publishing.done():
                publishing.result()
            rows = {family.name: _count(client, family.table) for family in catalog.families}
            reasons = worker.samples("chimera_records_rejected_total")
            progress.update(published, completed=produced.total())
            progress.update(stored, completed=sum(rows.values()))
            progress.update(rejected, completed=sum(reasons.values()))
            if (now_done := sum(rows.values()) + round(sum(reasons.values()))) != done:
                done, changed = now_done, time.monotonic()
    refused: Counter[str] = Counter()
    for (family_name, _), count in reasons.items():
        refused[family_name] += round(count)
    return Outcome(produced, rows, refused, changed - began)


def _publish(settings: Settings, catalog: Catalog, events: int, seed: int, produced: Counter[str]) -> None:
    """Publish sample events, the last of them damaged; counts them in `produced` as it goes."""
    start = datetime.now(UTC) - timedelta(hours=_HOURS)
    sampled = sample(events, seed=seed, start=start, hours=_HOURS)
    with Producer(settings, catalog) as producer:
        for name, event in islice(sampled, events - _DAMAGED):
            producer.send(name, event)
            produced[name] += 1
    # What the producer would never send: other programs may.
    encoders = {family.name: Encoder(family) for family in catalog.families}
    careless = KafkaProducer(settings.kafka.client)
    for name, event in sampled:
        key, value = encoders[name].encode(event)
        careless.produce(catalog.family(name).topic.name, value[: len(value) // 2], key)
        produced[name] += 1
    careless.flush()


def _count(client: Any, table: str) -> int:
    return int(client.execute(f"SELECT count() FROM {table}")[0][0])  # noqa: S608 (a table of topics.yaml)


def _show_counts(terminal: Console, outcome: Outcome) -> None:
    table = Table(title=f"What became of the events, in {outcome.seconds:.1f} s")
    table.add_column("table")
    for title in ("produced", "= stored", "+ rejected", ""):
        table.add_column(title, justify="right")
    for name, produced in outcome.produced.items():
        stored, rejected = outcome.stored[name], outcome.rejected[name]
        verdict = "[green]✓[/]" if produced == stored + rejected else f"[red]{stored + rejected - produced:+,}[/]"
        table.add_row(name, f"{produced:,}", f"{stored:,}", f"{rejected:,}", verdict)
    terminal.print(table)


def _show_answers(terminal: Console, settings: Settings) -> None:
    """Some of the specification's questions, as it asks them."""
    queries = load_queries()
    with connect(settings.clickhouse) as client:
        for query in (queries[name] for name in _QUERIES):
            rows, columns = client.execute(query.sql, with_column_types=True)
            table = Table(title=query.title, caption=f"{len(rows)} rows" if len(rows) > _SHOWN_ROWS else None)
            for name, type_name in columns:
                table.add_column(name, justify="left" if "String" in type_name else "right")
            for row in rows[:_SHOWN_ROWS]:
                table.add_row(*(f"{value:,.2f}" if isinstance(value, float) else str(value) for value in row))
            terminal.print(table)
