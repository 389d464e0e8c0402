"""Queries that are killed (KILL QUERY): each gives its whole answer or fails, and what was begun can be repeated."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import numpy as np
import pytest
from clickhouse_driver import Client
from support.events import events
from support.ingesting import batch_of
from support.processes import eventually
from support.session_stats import (
    ALL_CLOSED,
    DAY,
    broken_day,
    random_events,
    store_events,
    stored_rows,
)

from pipeline.catalog import load_catalog
from pipeline.clickhouse.client import connect, explained, kind_of
from pipeline.clickhouse.migrate import MIGRATIONS, migrate, pending
from pipeline.clickhouse.session_stats import COLUMNS, TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.clickhouse.table_lock import TableLock, TakenError
from pipeline.columns import Column
from pipeline.config import ClickHouseSettings, Settings
from pipeline.decode.decoder import Decoder
from pipeline.errors import FailureKind, UnavailableError
from pipeline.producer.encode import Encoder
from pipeline.rollup.audit import Audit
from pipeline.rollup.repair import OvertakenError, repair
from pipeline.worker.done_before import located

pytestmark = pytest.mark.integration

_SECONDS = 3
_PATIENCE_SECONDS = 60
_FAILURES = 20


@contextmanager
def _killing(settings: ClickHouseSettings, queries: str = "query LIKE 'SELECT%'") -> Iterator[None]:
    """Kill queries in the database or about it, over and over."""
    over = Event()
    own = f"(current_database = '{settings.database}' OR query LIKE '%{settings.database}%') AND query NOT LIKE 'KILL%'"

    def kill() -> None:
        with connect(settings, database="") as client:
            while not over.is_set():
                client.execute(f"KILL QUERY WHERE {own} AND ({queries}) ASYNC")

    killing = Thread(target=kill)
    killing.start()
    try:
        yield
    finally:
        over.set()
        killing.join()


def _ask(look: Callable[[], object], whole: object) -> int:
    """Ask until enough look-ups have failed, and check that each answer is whole; return the number of failures."""
    failures, deadline = 0, time.monotonic() + _PATIENCE_SECONDS
    while failures < _FAILURES and time.monotonic() < deadline:
        try:
            assert look() == whole
        except Exception as error:
            if isinstance(error, AssertionError) or kind_of(error) is not FailureKind.RETRY:
                raise
            failures += 1
    return failures


def test_a_killed_lookup_misses_no_rows(settings: Settings) -> None:
    """It is a failure that is tried again, though the server may end it without an error and without its rows."""
    migrate(settings.clickhouse)
    family, sink = load_catalog(settings).family("episodes"), Sink(settings.clickhouse)
    encoder = Encoder(family)
    values = [encoder.encode(event).value for event in events(family.name, 20)]
    rows = located(batch_of(family, values), Decoder(family).decode(values))
    numbers: dict[str, Column] = {name: np.ones(1, np.float32) for name in COLUMNS}
    session = {**numbers, "hour": np.full(1, 3600, np.uint32), "session_id": np.array([b"a" * 16], "V16")}
    sink.insert(family.table, rows, "token")
    sink.insert(TABLE, session, "token")
    try:
        with _killing(settings.clickhouse):
            missing = _ask(lambda: sink.missing_rows(family.table, family.key, rows, tried=True).any(), False)
            stored = _ask(lambda: sink.stored_sessions(TABLE, 3600), {b"a" * 16})
    finally:
        sink.close()
    assert missing == stored == _FAILURES


def test_a_killed_comparison_finds_all_differences(settings: Settings, client: Client) -> None:
    """`chimera rollup verify` never takes a part of the differences, or none, for all of them."""
    store_events(client, random_events(1))
    hours = Audit(client, "ui_events").hours(None)
    with connect(settings.clickhouse) as server:
        audit = Audit(server, "ui_events")
        whole = [list(audit.differences(hour)) for hour in hours]
        assert all(whole)
        with _killing(settings.clickhouse, "query LIKE '%UNION ALL%'"):
            failures = _ask(lambda: [list(audit.differences(hour)) for hour in hours], whole)
    assert failures == _FAILURES


def _is_taken(settings: ClickHouseSettings) -> bool:
    try:
        with TableLock(settings, TABLE):
            return False
    except (TakenError, UnavailableError):
        return True


def test_a_killed_repair_can_be_made_again(settings: Settings, client: Client) -> None:
    """The day has its rows from before or the right ones, never less; the last repair leaves no table."""
    rows = broken_day(client)
    before, killed = stored_rows(client), 0
    ours = f"query LIKE '%{TABLE}%' AND query NOT LIKE '%FROM {TABLE}'"  # not those of `stored_rows`
    with _killing(settings.clickhouse, f"{ours} AND rand() % 4 = 0"):
        ends_at = time.monotonic() + 2 * _SECONDS
        while time.monotonic() < ends_at:
            try:
                with explained(settings.clickhouse):
                    repair(settings.clickhouse, "ui_events", ALL_CLOSED, DAY)
            except (UnavailableError, OvertakenError, TakenError):
                killed += 1
            assert stored_rows(client) in (before, rows)
    assert killed
    eventually(lambda: not _is_taken(settings.clickhouse), "the lock of the last repair has ended")
    repair(settings.clickhouse, "ui_events", ALL_CLOSED, DAY)
    assert stored_rows(client) == rows


def test_a_killed_migration_can_be_made_again(settings: Settings) -> None:
    """`chimera migrate` takes no applied migration for a pending one, and ends with all of them applied."""
    names = [path.name for path in MIGRATIONS.glob("*.sql")]
    with _killing(settings.clickhouse, "query LIKE 'SELECT%schema_versions%' AND rand() % 4 = 0"):
        applied, ends_at = False, time.monotonic() + _PATIENCE_SECONDS
        while not applied and time.monotonic() < ends_at:
            with suppress(UnavailableError):
                migrate(settings.clickhouse)
                applied = True
        failures = _ask(lambda: pending(settings.clickhouse), ())
    assert applied
    assert failures == _FAILURES
    with connect(settings.clickhouse) as client:
        assert client.execute("SELECT count(), uniqExact(version) FROM schema_versions") == [(len(names), len(names))]
