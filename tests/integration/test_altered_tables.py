"""Tables that are altered while the worker runs: it halts before it sends a row, or goes on if nothing is at stake."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clickhouse_driver import Client
from support.events import events, publish, settled
from support.processes import Worker, last_word, prepare

from pipeline.catalog import Family, load_catalog
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.contract import check_rollup, check_tables
from pipeline.clickhouse.session_stats import COLUMNS, TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.errors import HaltError
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration


@pytest.fixture
def sink(settings: Settings, client: Client) -> Iterator[Sink]:
    """Sink that expects the tables as they were migrated, with a connection that has inserted already."""
    del client
    opened = Sink(settings.clickhouse)
    opened.expect(check_tables(settings.clickhouse, load_catalog(settings).families))
    opened.expect(check_rollup(settings.clickhouse))
    for table in ("bench_runs", "episodes", TABLE):
        opened.insert(table, _columns(settings, table), "before")
    yield opened
    opened.close()


def _columns(settings: Settings, table: str) -> dict[str, Column]:
    """Rows of a family, or one row of session_stats."""
    if table == TABLE:
        values = {name: np.ones(1, np.float32 if kind == "Float32" else np.int64) for name, kind in COLUMNS.items()}
        return {**values, "hour": np.ones(1, np.uint32), "session_id": np.zeros(1, "V16")}
    family = load_catalog(settings).family(table)
    encoder = Encoder(family)
    return dict(Decoder(family).decode([encoder.encode(event).value for event in events(table, 3)]).columns)


def _count(client: Client, table: str) -> int:
    return int(client.execute(f"SELECT count() FROM {table}")[0][0])


@pytest.mark.parametrize(
    ("table", "change", "expected"),
    [
        pytest.param(
            "bench_runs",
            "MODIFY COLUMN cost_per_1k Decimal(18,4)",
            r"cost_per_1k: expected Decimal\(10, 6\), found Decimal\(18, 4\)",
            id="scale of a decimal",
        ),
        pytest.param(
            "bench_runs",
            "MODIFY COLUMN cost_per_1k Decimal(18,6)",
            r"cost_per_1k: expected Decimal\(10, 6\), found Decimal\(18, 6\)",
            id="precision of a decimal",
        ),
        pytest.param(
            "bench_runs",
            "MODIFY COLUMN memory_peak_mb Int64",
            "memory_peak_mb: expected UInt32, found Int64",
            id="width and sign of a number",
        ),
        pytest.param(
            "bench_runs",
            "MODIFY COLUMN memory_peak_mb Nullable(UInt32)",
            r"memory_peak_mb: expected UInt32, found Nullable\(UInt32\)",
            id="Nullable",
        ),
        pytest.param(
            "episodes",
            "MODIFY COLUMN title LowCardinality(String)",
            r"title: expected String, found LowCardinality\(String\)",
            id="LowCardinality",
        ),
        pytest.param(
            "episodes",
            "MODIFY COLUMN status Enum8('complete' = 1, 'failed' = 2, 'running' = 3, 'cancelled' = 4, 'pending' = 5)",
            r"status: expected LowCardinality\(String\), found Enum8\('complete' = 1",
            id="Enum",
        ),
        pytest.param(
            "episodes",
            "MODIFY COLUMN confidence_score Float64",
            "confidence_score: expected Float32, found Float64",
            id="width of a float",
        ),
        pytest.param(
            "episodes",
            "MODIFY COLUMN title String EPHEMERAL",
            "title: expected String, found String EPHEMERAL",
            id="kind",
        ),
        pytest.param("episodes", "DROP COLUMN title", "title: expected String, found none", id="dropped"),
        pytest.param("episodes", "RENAME COLUMN title TO name", "title: expected String, found none", id="renamed"),
        pytest.param(
            "episodes",
            "MODIFY COLUMN title String MATERIALIZED 'x'",
            "title: expected String, found String MATERIALIZED",
            id="computed",
        ),
        pytest.param(
            "episodes", "ADD COLUMN x UInt8", "x: expected none, or one with a default, found UInt8", id="added"
        ),
        pytest.param(
            TABLE, "MODIFY COLUMN error_rate Float64", "error_rate: expected Float32, found Float64", id="session_stats"
        ),
        pytest.param(TABLE, "DROP COLUMN events_count", "events_count: expected UInt32, found none", id="its column"),
    ],
)
def test_an_altered_column_halts_before_a_row_is_sent(
    settings: Settings, sink: Sink, table: str, change: str, expected: str
) -> None:
    """The error names column, type expected and type found, for inserts and for the search for refused rows."""
    columns = _columns(settings, table)
    with connect(settings.clickhouse) as client:
        client.execute(f"TRUNCATE TABLE {table}")
        client.execute(f"ALTER TABLE {table} {change}")
        for _ in range(2):
            with pytest.raises(HaltError, match=rf"table test_\w+\.{table} at .*: column {expected}"):
                sink.insert(table, columns, "after")
            with pytest.raises(HaltError, match=expected):
                sink.refusal_code(table, columns)
        assert _count(client, table) == 0


def test_the_precision_of_a_time_halts(settings: Settings, client: Client, sink: Sink) -> None:
    """A table that takes the place of a checked one, with times in seconds, is refused too."""
    columns = _columns(settings, "episodes")
    client.execute("RENAME TABLE episodes TO former")
    (definition,) = client.execute("SHOW CREATE TABLE former")[0]
    client.execute(definition.replace(".former", ".episodes").replace("DateTime64(3, 'UTC')", "DateTime64(0, 'UTC')"))
    with pytest.raises(HaltError, match=r"ts: expected DateTime64\(3, 'UTC'\), found DateTime64\(0, 'UTC'\)"):
        sink.insert("episodes", columns, "after")
    assert _count(client, "episodes") == 0


@pytest.mark.parametrize("table", ["episodes", TABLE])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param("ADD COLUMN added UInt8 DEFAULT 7", id="column with a default"),
        pytest.param("ADD COLUMN added UInt8 MATERIALIZED 7", id="computed column"),
        pytest.param("ADD COLUMN added UInt8 ALIAS 7", id="alias"),
        pytest.param("ADD COLUMN added UInt8 DEFAULT 7 FIRST", id="order"),
        pytest.param("COMMENT COLUMN {column} 'it\\'s `x` UInt8\\n`y` UInt8'", id="comment"),
        pytest.param("MODIFY COLUMN {column} CODEC(ZSTD(3))", id="codec"),
        pytest.param("MODIFY COLUMN {column} DEFAULT 7", id="default"),
        pytest.param("ADD INDEX i {column} TYPE minmax", id="index"),
    ],
)
def test_a_rolling_upgrade_adds_columns_with_a_default(
    settings: Settings, client: Client, sink: Sink, table: str, change: str
) -> None:
    """A change that leaves the worker's columns as they are doesn't stop it, now or at its next start."""
    column = "events_count" if table == TABLE else "tokens_total"
    client.execute(f"ALTER TABLE {table} {change.format(column=column)}")
    before, columns = _count(client, table), _columns(settings, table)
    sink.insert(table, columns, "after")
    assert sink.refusal_code(table, columns) is None
    assert _count(client, table) == before + len(columns[column])
    check_tables(settings.clickhouse, load_catalog(settings).families)
    check_rollup(settings.clickhouse)


@pytest.mark.parametrize("table", ["episodes", TABLE])
def test_a_column_that_keeps_no_values_is_refused_at_start(settings: Settings, client: Client, table: str) -> None:
    """A column that inserts fill and the table doesn't store is named."""
    column = "events_count" if table == TABLE else "tokens_total"
    client.execute(f"ALTER TABLE {table} MODIFY COLUMN {column} UInt32 EPHEMERAL")

    def check() -> None:
        check_tables(settings.clickhouse, load_catalog(settings).families)
        check_rollup(settings.clickhouse)

    with pytest.raises(HaltError, match=f"{column}: expected one that stores values, found UInt32 EPHEMERAL"):
        check()


def test_a_table_altered_under_a_running_worker_ends_it(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """The worker stops with one line and code 70, and stores no row with a wrong value."""
    family: Family = prepare(settings).family("bench_runs")
    encoder = Encoder(family)
    values = [encoder.encode(event).value for event in events(family.name, 40)]
    with connect(settings.clickhouse) as client, Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        publish(settings, family.topic.name, values[:20])
        settled(worker, settings, family, 20)
        client.execute("ALTER TABLE bench_runs MODIFY COLUMN cost_per_1k Decimal(18,4)")
        publish(settings, family.topic.name, values[20:])
        line = last_word(worker, HaltError.exit_code)
        assert "column cost_per_1k: expected Decimal(10, 6), found Decimal(18, 4)" in line
        assert _count(client, "bench_runs") == 20
