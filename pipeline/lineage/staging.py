"""Staging table of a rewrite: days of a table as they are to be, and the swap that puts them in its place."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from pipeline.clickhouse.client import connect
from pipeline.clickhouse.coordinates import COORDINATES, OFFSET, PARTITION, TOPIC_ID
from pipeline.clickhouse.lookups import all_rows
from pipeline.config import ClickHouseSettings

_INFIX = "_rewrite_"
_LEFT = "SELECT name FROM system.tables WHERE database = currentDatabase() AND startsWith(name, %(prefix)s)"
_COLUMNS = """
SELECT name FROM system.columns
WHERE database = currentDatabase() AND table = %(table)s
    AND (default_kind IN ('', 'DEFAULT') OR name IN %(coordinates)s)
ORDER BY position
"""
# Bitmaps take a few bytes for thousands of neighbours.
_REMOVED = f"""
SELECT number, bitmapAndnotCardinality(old, new) AS removed,
    bitmapToArray(bitmapSubsetLimit(bitmapAndnot(old, new), 0, 5))
FROM (
    SELECT {PARTITION} AS number, groupBitmapState({OFFSET}) AS old FROM `{{table}}` WHERE {{chosen}} GROUP BY number
) AS here LEFT JOIN (
    SELECT {PARTITION} AS number, groupBitmapState({OFFSET}) AS new FROM `{{staging}}` GROUP BY number
) AS staged USING number
WHERE removed > 0 ORDER BY number
"""  # noqa: S608 (names of ours)
_COPY_SETTINGS = {
    "insert_allow_materialized_columns": 1,
    "insert_deduplicate": 0,
    "max_partitions_per_insert_block": 0,
    "async_insert": 0,
}


def drop_left(client: Any, table: str) -> list[str]:
    """Drop staging tables that killed rewrites of a table left; call it under the table's lock. Return their names.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    left = [name for (name,) in all_rows(client, _LEFT, {"prefix": f"{table}{_INFIX}"})]
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

    def carry_before(self, starts: Mapping[int, int]) -> int:
        """Copy rows as they are whose records aren't read: below these offsets, or of no known record of this topic.

        Returns:
            Number of rows.
        """
        return self._carry(f"(NOT {self._of_topic} OR {_below(starts)})")

    def carry_after(self, ends: Mapping[int, int]) -> int:
        """Copy rows as they are whose records are at or above these offsets: live ingest stores them.

        Returns:
            Number of rows.
        """
        return self._carry(f"{self._of_topic} AND NOT ({_below(ends)})")

    def removed(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, tuple[int, list[int]]]:
        """Return the rows of the days that the staging table lacks, within these offsets.

        Returns:
            Number of rows, and the first offsets, by partition; partitions without any are left out.
        """
        read = " OR ".join(
            f"({PARTITION} = {number} AND {OFFSET} >= {start} AND {OFFSET} < {ends[number]})"
            for number, start in starts.items()
        )
        query = _REMOVED.format(
            table=self._table, staging=self.name, chosen=f"{self._of_days} AND {self._of_topic} AND ({read})"
        )
        return {number: (count, first) for number, count, first in all_rows(self._client, query)}

    def swap(self) -> None:
        """Put each day that has rows in the place of the table's day, one step a day."""
        query = f"SELECT DISTINCT toDate(ts) FROM `{self.name}`"  # noqa: S608 (a name of ours)
        filled = {str(day) for (day,) in all_rows(self._client, query)}
        for day in self._days:
            if day in filled:
                self._client.execute(f"ALTER TABLE `{self._table}` REPLACE PARTITION '{day}' FROM `{self.name}`")

    def _carry(self, condition: str) -> int:
        chosen = f"FROM `{self._table}` WHERE {self._of_days} AND {condition}"
        before = self._count()
        self._client.execute(
            f"INSERT INTO `{self.name}` ({self._columns}) SELECT {self._columns} {chosen}",
            settings=_COPY_SETTINGS,
        )
        return self._count() - before

    def _count(self) -> int:
        return int(all_rows(self._client, f"SELECT count() FROM `{self.name}`")[0][0])  # noqa: S608 (a name of ours)

    @contextmanager
    def created(self, settings: ClickHouseSettings) -> Iterator[None]:
        """Create the staging table; it is dropped at the end.

        Args:
            settings: server and database.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
        """
        self._client.execute(f"CREATE TABLE `{self.name}` AS `{self._table}`")
        try:
            yield
        finally:
            with connect(settings) as another:  # the first connection may have been interrupted within a query
                another.execute(f"DROP TABLE `{self.name}` SYNC")


def _below(ends: Mapping[int, int]) -> str:
    return " OR ".join(f"({PARTITION} = {number} AND {OFFSET} < {end})" for number, end in ends.items())
