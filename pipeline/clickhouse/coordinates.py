"""Coordinates of rows: topic id, partition and offset of each row's record, in three columns of the six event tables.

The columns are MATERIALIZED, so that `SELECT *` and an INSERT without a list of columns stay as specified. The worker
writes their values, which takes the setting `insert_allow_materialized_columns`. Rows that were stored before the
columns were added, or by other writers, have zeros: the zero UUID is the id of no topic. docs/lineage.md is for their
readers.
"""

from base64 import b64decode
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pipeline.clickhouse.catching_up import catch_up
from pipeline.clickhouse.lookups import all_rows
from pipeline.columns import Column, Ints

TOPIC_ID, PARTITION, OFFSET = "_topic_id", "_partition", "_offset"

COORDINATES: Mapping[str, str] = {TOPIC_ID: "UUID", PARTITION: "UInt16", OFFSET: "UInt64"}
"""Name and ClickHouse type of each column."""

WITHOUT = UUID(int=0)
"""Topic id of rows without coordinates."""

_MOST_INTERVALS = 32
_SHORTEST_GAP_MS = 60_000


class Source(NamedTuple):
    """A partition of a topic, as the columns name it."""

    topic_id: UUID
    partition: int

    @classmethod
    def of(cls, topic_id: str, partition: int) -> "Source":
        """Make one from the id as Kafka's clients write it: 22 characters of Base64, of either alphabet.

        Raises:
            ValueError: it is no such id.
        """
        return cls(UUID(bytes=b64decode(f"{topic_id}==".translate(_URL_SAFE), validate=True)), partition)

    def columns(self, offsets: Ints) -> dict[str, Column]:
        """Return the three columns for rows with these offsets."""
        return {
            TOPIC_ID: np.full(len(offsets), np.void(self.topic_id.bytes), "V16"),
            PARTITION: np.full(len(offsets), self.partition, np.uint16),
            OFFSET: offsets.astype(np.uint64),
        }


_URL_SAFE = str.maketrans("-_", "+/")


def stored_offsets(
    client: Any, table: str, source: Source, first: int, last: int, *, times: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Return the offsets of `[first, last]` that the table has rows of, ascending.

    An offset with two rows appears twice. The server reads the parts and granules of `times` alone. A replica catches
    up first.

    Args:
        client: connected, with the table's database as default.
        table: one of the six event tables.
        source: partition of a topic.
        first: first offset.
        last: last offset.
        times: `ts` of the rows that are looked for, in ms, in any order; a row with a time far from these isn't found.

    Raises:
        UnavailableError: the server ended the query before its result was whole, or the replica lags behind.
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    if not len(times):
        return np.empty(0, np.uint64)
    catch_up(client, table)
    query = (
        f"SELECT arraySort(groupArray({OFFSET})) FROM `{table}` WHERE {within(times)} "  # noqa: S608 (names of ours)
        f"AND {TOPIC_ID} = toUUID('{source.topic_id}') AND {PARTITION} = {source.partition} "
        f"AND {OFFSET} BETWEEN {first} AND {last}"
    )
    return np.array(all_rows(client, query)[0][0], np.uint64)


def within(times: NDArray[np.int64]) -> str:
    """Return a condition in SQL on `ts` that all of these times meet, and few others; times in ms, at least one.

    A micro-batch may have rows of one minute, and one of 1970. So the widest gaps between the times are left out.
    """
    ordered = np.unique(times)
    gaps = np.diff(ordered)
    widest = np.argsort(gaps)[::-1][: _MOST_INTERVALS - 1]
    parts = np.split(ordered, np.sort(widest[gaps[widest] >= _SHORTEST_GAP_MS]) + 1)
    moments = (f"ts BETWEEN {_moment(part[0])} AND {_moment(part[-1])}" for part in parts)
    return f"({' OR '.join(moments)})"


def _moment(ms: np.int64) -> str:
    return f"fromUnixTimestamp64Milli({int(ms)}, 'UTC')"
