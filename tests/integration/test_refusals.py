"""Search for the rows that ClickHouse refuses for their data: its result, its cost, and repeated inserts."""

from collections.abc import Iterator, Mapping
from time import sleep
from typing import Any

import numpy as np
import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException

from pipeline.clickhouse.client import connect
from pipeline.clickhouse.refusals import MOST_ROWS, find_refused_now
from pipeline.clickhouse.sink import SILENCE_SECONDS, Sink
from pipeline.columns import Column, DictionaryColumn, Rows
from pipeline.config import Settings
from pipeline.errors import HaltError, Reason

pytestmark = pytest.mark.integration

_ROWS = 50_000
_REFUSE = "ALTER TABLE t ADD CONSTRAINT odd CHECK n NOT IN ({})"
_WINDOW = "non_replicated_deduplication_window = 1000"


class _CountingSink(Sink):
    """A sink that counts its probes."""

    probes = 0

    def refusal_code(self, table: str, columns: Any) -> int | None:
        self.probes += 1
        return super().refusal_code(table, columns)


@pytest.fixture
def table(settings: Settings) -> Iterator[Client]:
    """Client of a database with table `t`, which has an index, a default and a TTL."""
    with connect(settings.clickhouse, database="") as client:
        client.execute(f"CREATE DATABASE {settings.clickhouse.database}")
    with connect(settings.clickhouse) as client:
        client.execute(
            "CREATE TABLE t (n UInt32, name LowCardinality(String), text String, more UInt64 MATERIALIZED n + 1, "
            "ts DateTime DEFAULT now(), INDEX i n TYPE minmax GRANULARITY 1) ENGINE=MergeTree ORDER BY n "
            f"TTL ts + INTERVAL 1 YEAR SETTINGS {_WINDOW}"
        )
        yield client


@pytest.fixture
def sink(settings: Settings) -> Iterator[_CountingSink]:
    opened = _CountingSink(settings.clickhouse)
    yield opened
    opened.close()


def search(sink: Sink, rows: Rows) -> Rows:
    """Search for the refused rows of table `t`."""

    def probe(columns: Mapping[str, Column]) -> int | None:
        return sink.refusal_code("t", columns)

    return find_refused_now(probe, "t", rows)


def block(count: int = _ROWS) -> Rows:
    numbers = np.arange(count, dtype=np.int64)
    name = DictionaryColumn((numbers % 3).astype(np.uint32), [b"a", b"b", b"c"])
    columns: dict[str, Column] = {"n": numbers, "name": name, "text": [b"x"] * count}
    return Rows(columns, numbers * 2, ())


def test_refused_rows_are_found_and_nothing_is_stored(table: Client, sink: _CountingSink) -> None:
    """The first, the last and neighbouring rows are rejected with their code; the others keep their order."""
    refused = [0, 1, 7_000, _ROWS - 1]
    table.execute(_REFUSE.format(", ".join(map(str, refused))))
    left = search(sink, block())
    assert [(place, reason, detail) for place, reason, detail in left.rejections] == [
        (2 * row, Reason.REFUSED_BY_CLICKHOUSE, "error code 469") for row in refused
    ]
    assert table.execute("SELECT count() FROM t") == [(0,)]
    sink.insert("t", left.columns, "token")
    assert table.execute("SELECT count(), uniqExact(n), countIf(n IN (0, 1, 7000, 49999)) FROM t") == [
        (_ROWS - len(refused), _ROWS - len(refused), 0)
    ]


def test_a_block_with_every_row_refused_halts(table: Client, sink: _CountingSink) -> None:
    """The search stops after a few probes, long before one for each row."""
    table.execute("ALTER TABLE t ADD CONSTRAINT none CHECK n > 4000000")
    with pytest.raises(HaltError, match=rf"table t: .* more than {MOST_ROWS} rows .* error code 469; .* constraints"):
        search(sink, block())
    assert sink.probes < 3 * MOST_ROWS


def test_a_search_finds_no_row_that_only_a_view_refuses(table: Client, sink: _CountingSink) -> None:
    """The block is refused again, and so the worker halts."""
    table.execute("CREATE MATERIALIZED VIEW v ENGINE=MergeTree ORDER BY m AS SELECT toUInt8(text) AS m FROM t")
    rows = block(100)
    for _ in range(2):
        with pytest.raises(ServerException) as refusal:
            sink.insert("t", rows.columns, "token")
        assert refusal.value.code == 6
        assert not search(sink, rows).rejections


def test_a_repeated_block_without_the_constraint_is_stored_once(table: Client, sink: _CountingSink) -> None:
    """The accepted rows have the block's token: without the constraint, the whole block is dropped as repeated."""
    table.execute(_REFUSE.format("3"))
    whole = block(100)
    sink.insert("t", search(sink, whole).columns, "token")
    table.execute("ALTER TABLE t DROP CONSTRAINT odd")
    sink.insert("t", whole.columns, "token")
    assert table.execute("SELECT count(), uniqExact(n) FROM t") == [(99, 99)]


class _LateError(Exception):
    """The lease is over."""


def test_a_check_that_fails_ends_the_insert(table: Client, sink: _CountingSink) -> None:
    """Nothing is stored, and the token may be used again."""

    def late() -> None:
        raise _LateError

    rows = block(10)
    with pytest.raises(_LateError):
        sink.insert("t", rows.columns, "token", late)
    sink.insert("t", rows.columns, "token")
    assert table.execute("SELECT count() FROM t") == [(10,)]


def test_rows_that_come_too_late_are_refused(table: Client, sink: _CountingSink) -> None:
    """A worker that is paused after its check and goes on much later stores nothing."""
    rows = block(10)
    with pytest.raises(ServerException) as refusal:
        sink.insert("t", rows.columns, "token", lambda: sleep(2 * SILENCE_SECONDS + 1))
    assert refusal.value.code == 209
    assert table.execute("SELECT count() FROM t") == [(0,)]
