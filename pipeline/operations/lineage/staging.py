"""Staging table of a rewrite: days of a table as they are to be, and the swap that puts them in its place."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import numpy as np

from pipeline.clickhouse.catching_up import catch_up
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.coordinates import COORDINATES, OFFSET, PARTITION, TOPIC_ID
from pipeline.clickhouse.likeness import create_like
from pipeline.clickhouse.lookups import all_rows
from pipeline.columns import Ints
from pipeline.config import ClickHouseSettings
from pipeline.errors import UnavailableError

_INFIX, _RUN = "_rewrite_", "[0-9a-f]{8}"
_LEFT = "SELECT name FROM system.tables WHERE database = currentDatabase() AND match(name, %(pattern)s)"
_ENGINE = "SELECT engine, sorting_key FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"
_COLUMNS = """
SELECT name FROM system.columns
WHERE database = currentDatabase() AND table = %(table)s
    AND (default_kind IN ('', 'DEFAULT') OR name IN %(coordinates)s)
ORDER BY position
"""
# Bitmaps take a few bytes for thousands of neighbours.
_REMOVED = f"""
SELECT number, bitmapAndnotCardinality(old, new) AS removed,
    bitmapToArray(bitmapSubsetLimit(bitmapAndnot(old, new), 0, {{most}}))
FROM (
    SELECT {PARTITION} AS number, groupBitmapState({OFFSET}) AS old FROM {{table}} WHERE {{chosen}} GROUP BY number
) AS here LEFT JOIN (
    SELECT {PARTITION} AS number, groupBitmapState({OFFSET}) AS new FROM `{{staging}}` GROUP BY number
) AS staged USING number
WHERE removed > 0 ORDER BY number
"""  # noqa: S608 (names of ours)
# Rows of a ReplacingMergeTree that no row of the staging table replaces; a row with a new key is joined with time 0.
_NEWEST = f"""
(
    SELECT old.ts AS ts, old.{TOPIC_ID} AS {TOPIC_ID}, old.{PARTITION} AS {PARTITION}, old.{OFFSET} AS {OFFSET}
    FROM `{{table}}` AS old LEFT JOIN (
        SELECT toDate(ts) AS day, {{key}}, max(ts) AS newest FROM `{{staging}}` GROUP BY day, {{key}}
    ) AS made ON toDate(old.ts) = made.day AND {{same}}
    WHERE old.ts > made.newest
)
"""  # noqa: S608 (as above)
_WINDOW = 5_000_000  # offsets that are listed at a time
_COPY_SETTINGS = {
    "insert_allow_materialized_columns": 1,
    "insert_deduplicate": 0,
    "max_partitions_per_insert_block": 0,
    "async_insert": 0,
}


Ranges = Mapping[int, Sequence[range]]
"""Ranges of offsets that don't overlap, by partition."""


def is_staging(table: str) -> bool:
    """Tell whether a name is one of a staging table, which the next replay of its table drops."""
    return re.search(f"{_INFIX}{_RUN}$", table) is not None


def drop_left(client: Any, table: str) -> list[str]:
    """Drop staging tables that killed rewrites of a table left; call it under the table's lock. Return their names.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    left = [name for (name,) in all_rows(client, _LEFT, {"pattern": f"^{table}{_INFIX}{_RUN}$"})]
    for name in left:
        client.execute(f"DROP TABLE `{name}` SYNC")
    return left


class Staging:
    """Table with the columns, keys and settings of another one, for its days.

    `created` is the time for which it exists.

    Args:
        client: connected, with the table's database as default.
        table: name of the table.
        topic_id: id of the topic whose records are read again.
        days: days to make anew, as ClickHouse writes them.
        run: name of this run, a part of the staging table's name.
    """

    def __init__(self, client: Any, table: str, topic_id: UUID, days: Iterable[str], run: str) -> None:
        self._client = client
        self._table = table
        self._days = tuple(days)
        self.name = f"{table}{_INFIX}{run}"
        listed = ", ".join(f"'{day}'" for day in self._days)
        self._of_topic = f"{TOPIC_ID} = toUUID('{topic_id}')"
        self._of_days = f"toDate(ts) IN ({listed})"
        columns = all_rows(client, _COLUMNS, {"table": table, "coordinates": tuple(COORDINATES)})
        self._columns = ", ".join(f"`{column}`" for (column,) in columns)
        ((engine, key),) = all_rows(client, _ENGINE, {"table": table})
        self._key = key.split(", ") if "Replacing" in engine else []

    def carry_before(self, kept: Ranges) -> int:
        """Copy rows of this topic as they are whose records aren't read.

        Args:
            kept: their offsets. Live ingest is done with them.

        Returns:
            Number of rows.

        Raises:
            UnavailableError: the copy isn't whole.
            clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
        """
        catch_up(self._client, self._table)
        return self._carry(f"{self._of_topic} AND ({_within(kept)})")

    def carry_after(self, kept: Ranges, read: Ranges) -> int:
        """Copy all other rows as they are: those that live ingest stores, and those of unknown origin.

        Args:
            kept: offsets whose rows were copied before.
            read: offsets whose rows were made anew.

        Returns and raises: as `carry_before`.
        """
        catch_up(self._client, self._table)
        return self._carry(f"NOT ({self._of_topic} AND ({_within(kept)} OR {_within(read)}))")

    def unknown(self) -> int:
        """Return the number of rows of the days that have no coordinates of this topic.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
        """
        catch_up(self._client, self._table)
        return self._count(self._table, f"{self._of_days} AND NOT {self._of_topic}")

    def removed(self, read: Ranges, most: int = 5) -> dict[int, tuple[int, list[int]]]:
        """Return the rows of the days that the staging table lacks, and that none of its rows replaces.

        Args:
            read: offsets to look at.
            most: largest number of offsets to return of a partition.

        Returns:
            Number of rows, and the first offsets, by partition; partitions without any are left out.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
        """
        same = " AND ".join(f"old.{column} = made.{column}" for column in self._key)
        newest = _NEWEST.format(table=self._table, staging=self.name, key=", ".join(self._key), same=same)
        query = _REMOVED.format(
            table=newest if self._key else f"`{self._table}`",
            staging=self.name,
            most=most,
            chosen=f"{self._of_days} AND {self._of_topic} AND ({_within(read)})",
        )
        return {number: (count, first) for number, count, first in all_rows(self._client, query)}

    def removed_offsets(self, read: Ranges) -> dict[int, Ints]:
        """Return all offsets of which `removed` returns the first ones, by partition, ascending."""
        found = {}
        for number in self.removed(read):
            windows = [
                range(start, min(start + _WINDOW, some.stop))
                for some in read[number]
                for start in range(some.start, some.stop, _WINDOW)
            ]
            listed = [self.removed({number: [window]}, _WINDOW).get(number, (0, []))[1] for window in windows]
            found[number] = np.concatenate([np.array(some, np.int64) for some in listed])
        return found

    def swap(self) -> None:
        """Put each day in the place of the table's day, one step a day; a day without rows is dropped.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: a query failed; earlier days are swapped.
        """
        query = f"SELECT DISTINCT toDate(ts) FROM `{self.name}`"  # noqa: S608 (a name of ours)
        filled = {str(day) for (day,) in all_rows(self._client, query)}
        for day in self._days:
            change = f"REPLACE PARTITION '{day}' FROM `{self.name}`" if day in filled else f"DROP PARTITION '{day}'"
            self._client.execute(f"ALTER TABLE `{self._table}` {change}")

    def _carry(self, condition: str) -> int:
        chosen = f"{self._of_days} AND {condition}"
        expected = self._count(self._table, chosen)
        if not expected:
            return 0
        rows = f"SELECT {self._columns} FROM `{self._table}` WHERE {chosen}"  # noqa: S608 (names of ours)
        self._client.execute(f"INSERT INTO `{self.name}` ({self._columns}) {rows}", settings=_COPY_SETTINGS)
        copied = self._copied(chosen, expected)
        if copied < expected:  # the server may end a query that is killed without an error
            raise UnavailableError(
                f"table {self._table}: {copied:,} of {expected:,} rows were copied; expected all: nothing was "
                "changed, run the same command again"
            )
        return copied

    def _copied(self, chosen: str, expected: int) -> int:
        """Return the number of chosen rows that the staging table has; a row that another one replaces counts."""
        if not self._key:
            return self._count(self.name, chosen)
        key = ", ".join(["toDate(ts)", *self._key])
        return expected - self._count(self._table, f"{chosen} AND ({key}) NOT IN (SELECT {key} FROM `{self.name}`)")  # noqa: S608 (names of ours)

    def _count(self, table: str, chosen: str) -> int:
        return int(all_rows(self._client, f"SELECT count() FROM `{table}` WHERE {chosen}")[0][0])  # noqa: S608 (names of ours)

    @contextmanager
    def created(self, settings: ClickHouseSettings) -> Iterator[None]:
        """Create the staging table; it is dropped at the end.

        Args:
            settings: server and database.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
        """
        create_like(self._client, self.name, self._table)
        try:
            yield
        finally:
            with connect(settings) as another:  # the first connection may have been interrupted within a query
                another.execute(f"DROP TABLE `{self.name}` SYNC")


def _within(ranges: Ranges) -> str:
    """Return a condition in SQL that offsets of these ranges meet."""
    return (
        " OR ".join(
            f"({PARTITION} = {number} AND {OFFSET} >= {some.start} AND {OFFSET} < {some.stop})"
            for number, several in ranges.items()
            for some in several
        )
        or "0"
    )
