"""Queries that are killed (KILL QUERY): a look-up gives its whole answer or fails, and so no row is stored twice."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from threading import Event, Thread
from uuid import UUID

import numpy as np
import pytest
from support.events import events

from pipeline.catalog import load_catalog
from pipeline.clickhouse.client import connect, kind_of
from pipeline.clickhouse.migrate import migrate
from pipeline.clickhouse.session_stats import COLUMNS, TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column
from pipeline.config import ClickHouseSettings, Settings
from pipeline.decode.decoder import Decoder
from pipeline.errors import FailureKind
from pipeline.producer.encode import Encoder
from pipeline.rollup.audit import Audit, Hour

pytestmark = pytest.mark.integration

_SECONDS = 3
_LEAST_FAILURES = 20


@contextmanager
def _lookups_killed(settings: ClickHouseSettings) -> Iterator[None]:
    """Kill all look-ups in the database, over and over."""
    over = Event()

    def kill() -> None:
        with connect(settings, database="") as client:
            while not over.is_set():
                client.execute(
                    f"KILL QUERY WHERE current_database = '{settings.database}' AND query LIKE 'SELECT%' ASYNC"
                )

    killing = Thread(target=kill)
    killing.start()
    try:
        yield
    finally:
        over.set()
        killing.join()


def _ask(look: Callable[[], object], whole: object) -> int:
    """Ask for some seconds; check that each answer is whole, and return the number of failures."""
    failures, ends_at = 0, time.monotonic() + _SECONDS
    while time.monotonic() < ends_at:
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
    rows = Decoder(family).decode([encoder.encode(event).value for event in events(family.name, 20)]).columns
    values: dict[str, Column] = {name: np.ones(1, np.float32) for name in COLUMNS}
    session = {**values, "hour": np.full(1, 3600, np.uint32), "session_id": np.array([b"a" * 16], "V16")}
    sink.insert(family.table, rows, "token")
    sink.insert(TABLE, session, "token")
    try:
        with _lookups_killed(settings.clickhouse):
            missing = _ask(lambda: sink.missing_rows(family.table, family.key, rows).any(), False)
            stored = _ask(lambda: sink.stored_sessions(TABLE, 3600), {b"a" * 16})
            differing = _ask(lambda: _differences(settings), [UUID(bytes=b"a" * 16)])
    finally:
        sink.close()
    assert min(missing, stored, differing) >= _LEAST_FAILURES


def _differences(settings: Settings) -> list[UUID]:
    """Return the sessions that `chimera rollup verify` would list for the row, which has no events."""
    hour = Hour(3600, date(1970, 1, 1), 0, 1)
    with connect(settings.clickhouse) as client:
        return [difference.session_id for difference in Audit(client, "ui_events").differences(hour)]
