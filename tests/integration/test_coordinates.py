"""The columns of coordinates: written by ingest, unseen by queries and INSERTs of before, asked for by offsets."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from clickhouse_driver import Client
from support.events import as_stored, bag, events, publish, rows, settled
from support.processes import Worker, prepare

from pipeline.catalog import load_catalog
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.contract import check_tables
from pipeline.clickhouse.coordinates import COORDINATES, WITHOUT, Source, stored_offsets
from pipeline.clickhouse.migrate import MIGRATIONS, migrate
from pipeline.clickhouse.sink import Sink
from pipeline.config import Settings
from pipeline.errors import HaltError
from pipeline.kafka.topics import TopicAdmin
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_SOURCE = Source(UUID("2aade65e-8e69-434b-969b-49f4683db1ec"), 3)
_NOON_MS = 1_772_366_400_000
_DAY_MS = 86_400_000


def _insert(settings: Settings, offsets: list[int], times: list[int], source: Source = _SOURCE) -> None:
    """Store rows of watcher_runs with these coordinates."""
    count = len(offsets)
    numbers = ("hearts_rows_found", "packs_rows_found", "lag_seconds", "duration_ms")
    columns: dict[str, Any] = {
        "ts": np.array(times, np.int64),
        "run_id": np.zeros(count, "V16"),
        "hearts_commit": [b"a" * 40] * count,
        "packs_commit": [b"a" * 40] * count,
        "status": [b"valid"] * count,
        **dict.fromkeys(numbers, np.zeros(count, np.int64)),
        **source.columns(np.array(offsets, np.int64)),
    }
    sink = Sink(settings.clickhouse)
    sink.insert("watcher_runs", columns, f"{source}/{offsets}")
    sink.close()


def _stored(client: Client, times: list[int], first: int = 0, last: int = 2**64 - 1) -> list[int]:
    found = stored_offsets(client, "watcher_runs", _SOURCE, first, last, times=np.array(times, np.int64))
    assert found.dtype == np.uint64
    return list(found.tolist())


def test_a_worker_writes_the_coordinates_of_its_records(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """Each row has its record's topic id, partition and offset; rejected records leave gaps, and days don't matter."""
    family = prepare(settings).family("ui_events")
    encoder, sent = Encoder(family), events("ui_events", 30)
    for number, event in enumerate(sent):
        event["ts"] -= number % 3 * _DAY_MS
    values = [b"damaged" if number % 5 == 4 else encoder.encode(event).value for number, event in enumerate(sent)]
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        publish(settings, family.topic.name, values)
        settled(worker, settings, family, len(values))
    kept = {number: as_stored(family, event) for number, event in enumerate(sent) if number % 5 != 4}
    topic_id = TopicAdmin(settings.kafka).ids([family.topic.name])[family.topic.name]
    with connect(settings.clickhouse) as client:
        found = client.execute("SELECT _topic_id, _partition, _offset, session_id, latency_ms FROM ui_events")
    expected = [(*Source.of(topic_id, 0), number, row["session_id"], row["latency_ms"]) for number, row in kept.items()]
    assert sorted(found) == sorted(expected)
    assert bag(rows(settings, family.table)) == bag(kept.values())


def test_statements_of_before_stay_as_they_were(settings: Settings, client: Client) -> None:
    """SELECT * and DESCRIBE's plain columns don't show them, an INSERT without columns needs none, and zeros tell."""
    names = [field.name for field in load_catalog(settings).family("watcher_runs").schema.fields]
    _insert(settings, [7], [_NOON_MS])
    client.execute("INSERT INTO watcher_runs SELECT * FROM watcher_runs")
    client.execute(
        "INSERT INTO watcher_runs VALUES", [(datetime.now(UTC), WITHOUT, "a" * 40, "b" * 40, 1, 2, 3, "x", 4)]
    )
    found, columns = client.execute("SELECT * FROM watcher_runs", with_column_types=True)
    assert ([name for name, _ in columns], len(found)) == (names, 3)
    counted = "SELECT _topic_id, _partition, _offset, count() FROM watcher_runs GROUP BY ALL ORDER BY 4"
    assert client.execute(counted) == [(*_SOURCE, 7, 1), (WITHOUT, 0, 0, 2)]


def test_merges_mutations_and_new_columns_keep_coordinates(settings: Settings, client: Client) -> None:
    """Whatever rewrites parts leaves the values as they are."""
    _insert(settings, [1, 2], [_NOON_MS] * 2)
    _insert(settings, [5], [_NOON_MS])
    client.execute("ALTER TABLE watcher_runs ADD COLUMN note String DEFAULT 'none'")
    client.execute("ALTER TABLE watcher_runs UPDATE status = 'other' WHERE 1 SETTINGS mutations_sync = 1")
    client.execute("OPTIMIZE TABLE watcher_runs FINAL")
    assert _stored(client, [_NOON_MS]) == [1, 2, 5]


def test_offsets_are_found_in_their_range_and_by_their_source(settings: Settings, client: Client) -> None:
    """Offsets come in order, doubled ones twice, none of another topic or partition, none outside of the range."""
    times = [_NOON_MS + number for number in range(6)]
    _insert(settings, [9, 4, 2**40, 5, 6, 2], times)
    _insert(settings, [4], times[:1])
    _insert(settings, [7], times[:1], Source(_SOURCE.topic_id, 4))
    _insert(settings, [8], times[:1], Source(UUID(int=1), 3))
    assert _stored(client, times) == [2, 4, 4, 5, 6, 9, 2**40]
    assert _stored(client, times, 4, 6) == [4, 4, 5, 6]
    assert _stored(client, []) == []
    assert stored_offsets(client, "watcher_runs", _SOURCE, 0, 9, times=np.array([0])).tolist() == []


def test_a_look_up_reads_the_days_of_its_times_alone(settings: Settings, client: Client) -> None:
    """One time of 1970 among today's doesn't make the query read what lies between."""
    days = [0, *range(_NOON_MS - 400 * _DAY_MS, _NOON_MS + 1, _DAY_MS)]
    _insert(settings, list(range(len(days))), days)
    assert _stored(client, [_NOON_MS, 0]) == [0, len(days) - 1]
    assert client.last_query.progress.rows == 2
    assert _stored(client, days) == list(range(len(days)))


@pytest.mark.parametrize("name", COORDINATES)
def test_a_table_without_a_column_of_coordinates_halts(settings: Settings, client: Client, name: str) -> None:
    """The worker doesn't start, and the message says what adds the column."""
    families = load_catalog(settings).families
    check_tables(settings.clickhouse, families)
    client.execute(f"ALTER TABLE episodes DROP COLUMN {name}")
    with pytest.raises(HaltError, match=f"episodes .* column {name}: expected .* found none; .*`chimera migrate`"):
        check_tables(settings.clickhouse, families)


def test_the_migration_rewrites_no_rows(settings: Settings, tmp_path: Path) -> None:
    """Parts stay as they are, whatever their number of rows; their rows have zeros."""
    former = Path(shutil.copytree(MIGRATIONS, tmp_path / "migrations"))
    for path in former.glob("*_coordinates.sql"):
        path.unlink()
    migrate(settings.clickhouse, former)
    parts = "SELECT name, bytes_on_disk FROM system.parts WHERE database = currentDatabase() AND active AND rows > 1000"
    with connect(settings.clickhouse) as client:
        client.execute("INSERT INTO watcher_runs (ts) SELECT now() FROM numbers(100000)")
        before = client.execute(parts)
        assert {path.stem[4:] for path in migrate(settings.clickhouse)} == {
            f"{family.table}_coordinates" for family in load_catalog(settings).families
        }
        assert len(before) == 1
        assert client.execute(parts) == before
        counted = "SELECT _topic_id, _partition, _offset, count() FROM watcher_runs GROUP BY ALL"
        assert client.execute(counted) == [(WITHOUT, 0, 0, 100_000)]
