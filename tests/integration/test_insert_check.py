"""Rows of a repeated micro-batch that are missing, by coordinates: they are inserted, and nothing else."""

from typing import Any

import numpy as np
import pytest
from clickhouse_driver import Client
from support.ingesting import ROWS, START, batch_of, ingest, values

from pipeline.catalog import Family, load_catalog
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.insert_check import missing_rows
from pipeline.clickhouse.migrate import migrate
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.worker.done_before import located

pytestmark = pytest.mark.integration

_COUNT = "SELECT count(), uniqExact(*), uniqExact(_offset) FROM ui_events"
_DAY_MS = 86_400_000


@pytest.fixture
def family(settings: Settings) -> Family:
    migrate(settings.clickhouse)
    return load_catalog(settings).family("ui_events")


def _query(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    with connect(settings.clickhouse) as client:
        rows: list[tuple[Any, ...]] = client.execute(sql)
        return rows


def _columns(family: Family, seed: int = 1, first: int = 0) -> dict[str, Column]:
    records = values(family, seed)
    return located(batch_of(family, records, first=first), Decoder(family).decode(records))


def test_missing_rows_are_found_one_by_one(settings: Settings, family: Family) -> None:
    """Rows of other offsets don't count, nor do equal rows; a deleted row is found."""
    rows = _columns(family)
    sink = Sink(settings.clickhouse)
    sink.insert(family.table, _columns(family, first=ROWS), "equal rows of other offsets")
    for tried in (False, True):
        assert sink.missing_rows(family.table, family.key, rows, tried=tried).all()
    sink.insert(family.table, rows, "rows")
    assert not sink.missing_rows(family.table, family.key, rows, tried=False).any()
    _query(settings, "DELETE FROM ui_events WHERE toDate(ts) = '2026-03-02' OR _offset = 5")
    gone = np.asarray(rows["ts"]) // _DAY_MS == START.timestamp() // 86_400 + 1
    gone[5] = True
    for tried in (False, True):
        np.testing.assert_array_equal(sink.missing_rows(family.table, family.key, rows, tried=tried), gone)
    sink.close()


def test_replaced_rows_are_not_missing(settings: Settings, family: Family) -> None:
    """A ReplacingMergeTree keeps the latest row of each key and day; older ones needn't come back, newer ones must."""
    del family
    runs = load_catalog(settings).family("bench_runs")
    columns = _columns(runs)
    noon = np.asarray(columns["ts"]) // _DAY_MS * _DAY_MS + _DAY_MS // 2
    columns, sink = {**columns, "ts": noon}, Sink(settings.clickhouse)
    other = _columns(runs, first=ROWS)
    for shift, missing in ((1, False), (0, False), (-1, True)):
        _query(settings, "TRUNCATE TABLE bench_runs")
        sink.insert(runs.table, columns, f"first {shift}")
        sink.insert(runs.table, {**other, "ts": noon + shift}, f"second {shift}")
        assert not sink.missing_rows(runs.table, runs.key, columns, tried=False).any()
        _query(settings, f"DELETE FROM bench_runs WHERE _offset < {ROWS}")  # as a merge would, but for the last case
        assert sink.missing_rows(runs.table, runs.key, columns, tried=False).all() == missing
        assert sink.missing_rows(runs.table, runs.key, columns, tried=True).any() == missing
    sink.close()


def test_rows_that_replace_each_other_in_one_block_are_done(settings: Settings, family: Family) -> None:
    """The server keeps the newest row of a key when it stores the block; the repeated block adds nothing."""
    del family
    runs = load_catalog(settings).family("bench_runs")
    records = values(runs, rows=20) * 2
    for again in (False, True, True):
        ingest(settings, runs, batch_of(runs, records, again=again))
        assert _query(settings, "SELECT count(), uniqExact(_offset), min(_offset) FROM bench_runs") == [(20, 20, 20)]


@pytest.mark.parametrize("lost", ["1", "toDate(ts) = '2026-03-02'", "_offset % 3 = 0"], ids=["all", "a day", "a third"])
def test_missing_rows_of_a_known_token_are_inserted_again(settings: Settings, family: Family, lost: str) -> None:
    """Rows that are missing although their token is known are inserted, the others stay; this may be repeated."""
    records = values(family)
    ingest(settings, family, batch_of(family, records))
    expected = [(ROWS, ROWS, ROWS)]
    assert _query(settings, _COUNT) == expected
    for _ in range(2):
        _query(settings, f"DELETE FROM ui_events WHERE {lost}")
        for _ in range(2):
            ingest(settings, family, batch_of(family, records, again=True))
            assert _query(settings, _COUNT) == expected


def test_rows_stay_missing_without_the_check(settings: Settings, family: Family) -> None:
    """ClickHouse drops the repeated insert, so the test above tests a real loss."""
    records = values(family)
    ingest(settings, family, batch_of(family, records))
    _query(settings, "DELETE FROM ui_events WHERE 1")
    ingest(settings, family, batch_of(family, records))
    assert _query(settings, "SELECT count() FROM ui_events") == [(0,)]


def test_lost_rows_whose_twins_are_stored_come_back(settings: Settings, family: Family) -> None:
    """Events that were published twice are two rows each, also if the second part is lost behind its token."""
    records = values(family)
    ingest(settings, family, batch_of(family, records))
    ingest(settings, family, batch_of(family, records, first=ROWS))
    _query(settings, f"DELETE FROM ui_events WHERE _offset >= {ROWS}")
    for _ in range(2):
        ingest(settings, family, batch_of(family, records, first=ROWS, again=True))
        assert _query(settings, _COUNT) == [(2 * ROWS, ROWS, 2 * ROWS)]


def test_a_token_that_is_forgotten_doubles_nothing(settings: Settings, family: Family) -> None:
    """The look before the insert needs no token, so an outage may be longer than the deduplication window."""
    _query(settings, "ALTER TABLE ui_events MODIFY SETTING non_replicated_deduplication_window = 2")
    records, others = values(family), values(family, seed=2)
    ingest(settings, family, batch_of(family, records))
    ingest(settings, family, batch_of(family, others, first=ROWS))
    for _ in range(2):
        ingest(settings, family, batch_of(family, records, again=True))
        assert _query(settings, _COUNT) == [(2 * ROWS, 2 * ROWS, 2 * ROWS)]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("ALTER TABLE ui_events DROP PARTITION '2026-03-02'", id="dropped"),
        pytest.param("ALTER TABLE ui_events REPLACE PARTITION '2026-03-02' FROM former", id="swapped for another"),
        pytest.param("ALTER TABLE ui_events MOVE PARTITION '2026-03-02' TO TABLE former", id="moved away"),
        pytest.param("TRUNCATE TABLE ui_events", id="truncated"),
    ],
)
def test_a_day_that_somebody_took_away_comes_back(settings: Settings, family: Family, change: str) -> None:
    """Its token may be known or not; rows of other days and of other micro-batches are as they were."""
    records, others = values(family), values(family, seed=2)
    _query(settings, "CREATE TABLE former AS ui_events")
    ingest(settings, family, batch_of(family, others, first=ROWS))
    names = "ts, session_id, commit_sha, event_type, latency_ms, user_agent, metadata, schema_version"
    coordinates = "_topic_id, _partition, _offset"
    _query(
        settings,
        f"INSERT INTO former ({names}, {coordinates}) SELECT {names}, {coordinates} FROM ui_events "
        "SETTINGS insert_allow_materialized_columns = 1",
    )
    ingest(settings, family, batch_of(family, records))
    _query(settings, change)
    before = _query(settings, f"SELECT count() FROM ui_events WHERE _offset >= {ROWS}")
    for _ in range(2):
        ingest(settings, family, batch_of(family, records, again=True))
        assert _query(settings, f"{_COUNT} WHERE _offset < {ROWS}") == [(ROWS, ROWS, ROWS)]
        assert _query(settings, f"SELECT count() FROM ui_events WHERE _offset >= {ROWS}") == before


def test_a_restored_table_knows_no_tokens_and_doubles_nothing(settings: Settings, family: Family) -> None:
    """What was stored before the backup stays, what came after it is inserted again."""
    early, late = values(family), values(family, seed=2)
    with connect(settings.clickhouse) as client:
        ingest(settings, family, batch_of(family, early))
        client.execute("BACKUP TABLE ui_events TO Memory('b')")
        ingest(settings, family, batch_of(family, late, first=ROWS))
        client.execute("DROP TABLE ui_events SYNC")
        client.execute("RESTORE TABLE ui_events FROM Memory('b')")
    for _ in range(2):
        ingest(settings, family, batch_of(family, early, again=True))
        ingest(settings, family, batch_of(family, late, first=ROWS, again=True))
        assert _query(settings, _COUNT) == [(2 * ROWS, 2 * ROWS, 2 * ROWS)]


@pytest.mark.parametrize("lost", [None, "toDate(ts) = '2026-03-02'"], ids=["all there", "a day lost"])
def test_a_range_that_an_older_version_stored_is_not_doubled(
    settings: Settings, family: Family, lost: str | None
) -> None:
    """Its rows have no coordinates: its token drops it, and days are looked for by time and key."""
    records = values(family)
    batch, sink = batch_of(family, records, again=True), Sink(settings.clickhouse)
    sink.insert(family.table, Decoder(family).decode(records).columns, batch.token)
    sink.close()
    if lost:
        _query(settings, f"DELETE FROM ui_events WHERE {lost}")
    for _ in range(2):
        ingest(settings, family, batch_of(family, records, again=True))
        assert _query(settings, "SELECT count(), uniqExact(*) FROM ui_events") == [(ROWS, ROWS)]


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
    rows = _columns(family)
    spread = {**rows, "ts": np.asarray(rows["ts"]) + np.arange(ROWS) % days * _DAY_MS}
    sink = Sink(settings.clickhouse)
    sink.insert(family.table, spread, "rows")
    sink.close()
    first = {name: column[:1] for name, column in spread.items() if isinstance(column, (np.ndarray, list))}
    with connect(settings.clickhouse) as client:
        many, one = _Counting(client), _Counting(client)
        assert not missing_rows(many, family.table, family.key, spread, tried=True).any()
        assert not missing_rows(one, family.table, family.key, first, tried=True).any()
        assert many.queries == one.queries <= 3
        assert one.rows < many.rows / 10
        client.execute("DELETE FROM ui_events WHERE toDate(ts) IN ('2026-03-10', '2026-04-10')")
        missing = missing_rows(many, family.table, family.key, spread, tried=True)
    gone = np.unique(np.asarray(spread["ts"])[missing] // _DAY_MS)
    assert [str(np.datetime64(int(day), "D")) for day in gone] == ["2026-03-10", "2026-04-10"]
