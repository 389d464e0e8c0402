"""The insert check: rows of a repeated insert that ClickHouse drops as duplicates, but doesn't have."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from clickhouse_driver import Client
from support.records import TOPIC_ID, Record

from pipeline.catalog import Family, load_catalog
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.insert_check import missing_rows
from pipeline.clickhouse.migrate import migrate
from pipeline.clickhouse.sink import Sink
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.dlq.writer import DeadLetters
from pipeline.producer.encode import Encoder
from pipeline.retry import Held, lease_clock
from pipeline.sample import sample
from pipeline.transport.micro_batch import MicroBatch, State
from pipeline.transport.partition import PartitionBatches
from pipeline.worker.ingest import Ingest
from pipeline.worker.places import Places

pytestmark = pytest.mark.integration

START = datetime(2026, 3, 1, tzinfo=UTC)
HOURS = 72.0
ROWS = 900
BROKER_TIME_MS = round((START + timedelta(hours=HOURS)).timestamp() * 1000)
"""Timestamp of all records; no event is later than its record."""


@pytest.fixture
def family(settings: Settings) -> Family:
    migrate(settings.clickhouse)
    return load_catalog(settings).family("ui_events")


def _values(family: Family, seed: int = 1) -> list[bytes]:
    encoder = Encoder(family)
    events = sample(ROWS, seed=seed, start=START, hours=HOURS, families=[family.name])
    return [encoder.encode(event).value for _, event in events]


def _batch(family: Family, values: Sequence[bytes], *, again: bool) -> MicroBatch:
    state = State(0, (len(values) - 1,) if again else ())
    owner = PartitionBatches(family.topic.name, TOPIC_ID, 0, state, policy=family.batch, limit=2)
    owner.committed(state, lease_clock())
    owner.add([Record(offset, value, timestamp=BROKER_TIME_MS) for offset, value in enumerate(values)], 0.0)
    (batch,) = owner.cut(0.0, hurry=True)
    return batch


def _store(settings: Settings, family: Family, batch: MicroBatch) -> None:
    async def renew(_: Held) -> bool:
        return True

    with ThreadPoolExecutor(1) as pool:
        ingest = Ingest(
            family,
            decoder=Decoder(family),
            sink=Sink(settings.clickhouse),
            dead_letters=DeadLetters(settings.kafka, [family]),
            renew=renew,
            pool=pool,
            places=Places(1),
            settings=settings.worker,
        )

        asyncio.run(ingest.process(batch))


def _query(settings: Settings, sql: str) -> list[tuple[int, ...]]:
    with connect(settings.clickhouse) as client:
        rows: list[tuple[int, ...]] = client.execute(sql)
        return rows


def test_missing_rows_are_found_by_day(settings: Settings, family: Family) -> None:
    """All rows of a day are missing if the table has none of them; rows of other inserts don't count."""
    rows, others = (Decoder(family).decode(_values(family, seed)) for seed in (1, 2))
    sink = Sink(settings.clickhouse)
    sink.insert(family.table, others.columns, "others")
    assert sink.missing_rows(family.table, family.key, rows.columns).all()
    sink.insert(family.table, rows.columns, "rows")
    assert not sink.missing_rows(family.table, family.key, rows.columns).any()
    _query(settings, "DELETE FROM ui_events WHERE toDate(ts) = '2026-03-02'")
    second = np.asarray(rows.columns["ts"]) // 86_400_000 == START.timestamp() // 86_400 + 1
    assert second.any()
    np.testing.assert_array_equal(sink.missing_rows(family.table, family.key, rows.columns), second)


def test_replaced_rows_are_not_missing(settings: Settings, family: Family) -> None:
    """A ReplacingMergeTree keeps the latest row of each key; the replaced rows don't count as missing."""
    del family
    runs = load_catalog(settings).family("bench_runs")
    rows = Decoder(runs).decode(_values(runs))
    columns = dict(rows.columns)
    later = {**columns, "ts": np.asarray(columns["ts"]) // 86_400_000 * 86_400_000 + 86_399_999}
    sink = Sink(settings.clickhouse)
    sink.insert(runs.table, columns, "first")
    sink.insert(runs.table, later, "second")
    _query(settings, "OPTIMIZE TABLE bench_runs FINAL")
    assert _query(settings, "SELECT count() FROM bench_runs") == [(ROWS,)]
    assert not sink.missing_rows(runs.table, runs.key, columns).any()


@pytest.mark.parametrize("lost", ["1", "toDate(ts) = '2026-03-02'"], ids=["all", "one day"])
def test_missing_rows_of_a_known_token_are_inserted_again(settings: Settings, family: Family, lost: str) -> None:
    """Missing rows whose token is known are inserted again, once; this may be repeated too."""
    values = _values(family)
    _store(settings, family, _batch(family, values, again=False))
    expected = _query(settings, "SELECT count(), uniqExact(*) FROM ui_events")
    assert expected == [(ROWS, ROWS)]
    _query(settings, f"DELETE FROM ui_events WHERE {lost}")
    for _ in range(2):
        _store(settings, family, _batch(family, values, again=True))
        assert _query(settings, "SELECT count(), uniqExact(*) FROM ui_events") == expected
    _query(settings, f"DELETE FROM ui_events WHERE {lost}")
    _store(settings, family, _batch(family, values, again=True))
    assert _query(settings, "SELECT count(), uniqExact(*) FROM ui_events") == expected


def test_rows_stay_missing_without_the_check(settings: Settings, family: Family) -> None:
    """ClickHouse drops the repeated insert, so the test above tests a real loss."""
    values = _values(family)
    _store(settings, family, _batch(family, values, again=False))
    assert _query(settings, "SELECT count() FROM ui_events") == [(ROWS,)]
    _query(settings, "DELETE FROM ui_events WHERE 1")
    _store(settings, family, _batch(family, values, again=False))
    assert _query(settings, "SELECT count() FROM ui_events") == [(0,)]


class _Counting:
    """A client that counts its queries, and the rows that the server read for them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.queries = self.rows = 0

    def execute(self, *query: Any, **options: Any) -> Any:
        answer = self._client.execute(*query, **options)
        self.queries += 1
        self.rows += self._client.last_query.progress.rows
        return answer


def test_many_days_are_looked_for_at_once(settings: Settings, family: Family) -> None:
    """The number of queries doesn't grow with the days, and only the parts of the block's days are read."""
    days = 100
    rows = Decoder(family).decode(_values(family))
    spread = {**rows.columns, "ts": np.asarray(rows.columns["ts"]) + np.arange(len(rows)) % days * 86_400_000}
    sink = Sink(settings.clickhouse)
    sink.insert(family.table, spread, "rows")
    first = {name: column[:1] for name, column in spread.items() if name in {"ts", family.key}}  # type: ignore[index]
    with connect(settings.clickhouse) as client:
        many, one = _Counting(client), _Counting(client)
        assert not missing_rows(many, family.table, family.key, spread).any()
        assert not missing_rows(one, family.table, family.key, first).any()
        assert many.queries == one.queries <= 3
        assert one.rows < many.rows / 10
        client.execute("DELETE FROM ui_events WHERE toDate(ts) IN ('2026-03-10', '2026-04-10')")
        gone = np.unique(np.asarray(spread["ts"])[missing_rows(many, family.table, family.key, spread)] // 86_400_000)
    assert [str(np.datetime64(int(day), "D")) for day in gone] == ["2026-03-10", "2026-04-10"]
