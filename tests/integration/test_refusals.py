"""Rows that ClickHouse refuses for their data: found at a bounded cost, and whatever happens between two attempts."""

from collections.abc import Iterator
from time import sleep
from typing import Any

import numpy as np
import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException

from pipeline.clickhouse.client import connect
from pipeline.clickhouse.refusals import MOST_ROWS, find_refused
from pipeline.clickhouse.sink import SILENCE_SECONDS, Sink
from pipeline.columns import Column, DictionaryColumn, Rows
from pipeline.config import Settings
from pipeline.errors import HaltError, Reason

pytestmark = pytest.mark.integration

_ROWS = 50_000
_GUILTY = "ALTER TABLE t ADD CONSTRAINT odd CHECK n NOT IN ({})"
_WINDOW = "non_replicated_deduplication_window = 1000"


class _CountingSink(Sink):
    """A sink that knows how often it was asked."""

    probes = 0

    def refusal_code(self, table: str, columns: Any) -> int | None:
        self.probes += 1
        return super().refusal_code(table, columns)


@pytest.fixture
def table(settings: Settings) -> Iterator[Client]:
    """A client with a table `t`, of what a table may have: an index, a default, a time to live."""
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


def block(count: int = _ROWS) -> Rows:
    numbers = np.arange(count, dtype=np.int64)
    name = DictionaryColumn((numbers % 3).astype(np.uint32), [b"a", b"b", b"c"])
    columns: dict[str, Column] = {"n": numbers, "name": name, "text": [b"x"] * count}
    return Rows(columns, numbers * 2, ())


def test_the_guilty_rows_are_found_and_nothing_is_stored(table: Client, sink: _CountingSink) -> None:
    """First, last, neighbours: each with its code, and the others in their order."""
    guilty = [0, 1, 7_000, _ROWS - 1]
    table.execute(_GUILTY.format(", ".join(map(str, guilty))))
    left = find_refused(sink, "t", block())
    assert [(place, reason, detail) for place, reason, detail in left.rejections] == [
        (2 * row, Reason.REFUSED_BY_CLICKHOUSE, "error code 469") for row in guilty
    ]
    assert table.execute("SELECT count() FROM t") == [(0,)]
    sink.insert("t", left.columns, "token")
    assert table.execute("SELECT count(), uniqExact(n), countIf(n IN (0, 1, 7000, 49999)) FROM t") == [
        (_ROWS - len(guilty), _ROWS - len(guilty), 0)
    ]


def test_a_block_of_which_every_row_is_refused_halts(table: Client, sink: _CountingSink) -> None:
    """After a few probes, not one for each row."""
    table.execute("ALTER TABLE t ADD CONSTRAINT none CHECK n > 4000000")
    with pytest.raises(HaltError, match=rf"table t: more than {MOST_ROWS} rows .* error code 469; .* constraints"):
        find_refused(sink, "t", block())
    assert sink.probes < 3 * MOST_ROWS


def test_a_block_that_only_a_view_refuses_halts(table: Client, sink: _CountingSink) -> None:
    """No row of it can be blamed."""
    table.execute("CREATE MATERIALIZED VIEW v ENGINE=MergeTree ORDER BY m AS SELECT toUInt8(text) AS m FROM t")
    rows = block(100)
    with pytest.raises(ServerException) as refusal:
        sink.insert("t", rows.columns, "token")
    assert refusal.value.code == 6
    with pytest.raises(HaltError, match="none of its rows by itself; look at the views"):
        find_refused(sink, "t", rows)


def test_a_repetition_that_is_no_longer_refused_is_stored_once(table: Client, sink: _CountingSink) -> None:
    """The rows that were taken have the block's token: when the constraint is gone, the whole block is a repetition."""
    table.execute(_GUILTY.format("3"))
    whole = block(100)
    sink.insert("t", find_refused(sink, "t", whole).columns, "token")
    table.execute("ALTER TABLE t DROP CONSTRAINT odd")
    sink.insert("t", whole.columns, "token")
    assert table.execute("SELECT count(), uniqExact(n) FROM t") == [(99, 99)]


class _LateError(Exception):
    """Time is over."""


def test_a_check_that_fails_ends_the_insert(table: Client, sink: _CountingSink) -> None:
    """With nothing stored, and its token not used up."""

    def late() -> None:
        raise _LateError

    rows = block(10)
    with pytest.raises(_LateError):
        sink.insert("t", rows.columns, "token", late)
    sink.insert("t", rows.columns, "token")
    assert table.execute("SELECT count() FROM t") == [(10,)]


def test_rows_that_come_too_late_are_refused(table: Client, sink: _CountingSink) -> None:
    """A worker that is stopped when its check has passed, and goes on much later, stores nothing."""
    rows = block(10)
    with pytest.raises(ServerException) as refusal:
        sink.insert("t", rows.columns, "token", lambda: sleep(2 * SILENCE_SECONDS + 1))
    assert refusal.value.code == 209
    assert table.execute("SELECT count() FROM t") == [(0,)]
