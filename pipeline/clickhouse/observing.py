"""Facts about tables and server, from ClickHouse's system tables: two queries, which read no rows of the tables."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clickhouse_driver import Client

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.config import ClickHouseSettings

# A part of level 0 is as an insert wrote it; a merge makes parts of higher levels, at its own time. Each insert has a
# block number, which merges keep: it tells of an insert whose part was merged before anybody saw it.
_TABLES = """
SELECT table, sum(rows_of), sum(bytes_of), sum(parts_of), max(parts_of), max(newest), max(inserted), max(touched),
    sum(block)
FROM (
    SELECT table, partition, sum(rows) AS rows_of, sum(bytes_on_disk) AS bytes_of, count() AS parts_of,
        toUnixTimestamp(max(max_time)) AS newest,
        toUnixTimestamp(maxIf(modification_time, level = 0)) AS inserted,
        toUnixTimestamp(max(modification_time)) AS touched,
        max(max_block_number) AS block
    FROM system.parts WHERE active AND database = %(database)s GROUP BY table, partition
) GROUP BY table
"""
_SERVER = """
SELECT version(), uptime(), toUnixTimestamp64Milli(now64(3)),
    (SELECT count() FROM system.merges WHERE database = %(database)s),
    (SELECT groupArray((name, toUInt64(free_space), toUInt64(total_space))) FROM system.disks),
    (SELECT groupArray((name, total)) FROM (SELECT name, sum(value) AS total FROM system.errors GROUP BY name)),
    (SELECT groupArray(name) FROM system.tables WHERE database = %(database)s)
"""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One table; times in seconds since 1970, 0 if there is none."""

    rows: int
    bytes_on_disk: int
    parts: int
    most_parts: int
    newest_event: int
    newest_insert: int
    """Time of the newest part that no merge has touched."""
    newest_part: int
    """Time of the newest part, also of a merged one."""
    blocks: int
    """Sum of the last block numbers of all partitions; an insert raises it."""


@dataclass(frozen=True, slots=True)
class StorageFacts:
    """The server and the tables of the database."""

    version: str
    uptime_seconds: int
    time_ms: int
    merges: int
    disks: tuple[tuple[str, int, int], ...]
    """Name, free bytes and all bytes."""
    errors: Mapping[str, int]
    """Errors since the server's start."""
    tables: Mapping[str, TableFacts]
    """By name; a table without rows has zeros, and a missing one is missing."""


class StorageObserver:
    """Looks at ClickHouse over one connection, which a failure closes.

    Args:
        settings: address and login.
        answer_seconds: longest wait for an answer.
    """

    def __init__(self, settings: ClickHouseSettings, *, answer_seconds: float) -> None:
        timeouts = {"connect_timeout_seconds": answer_seconds, "query_timeout_seconds": answer_seconds}
        self._settings, self._answer_seconds = settings.model_copy(update=timeouts), answer_seconds
        self._client: Client | None = None

    def look(self, tables: Iterable[str]) -> StorageFacts:
        """Ask for the facts about these tables.

        Raises:
            UnavailableError: ClickHouse doesn't answer in time.
            HaltError: it refuses; the message says why.
        """
        try:
            with explained(self._settings):
                self._client = self._client or connect(self._settings, database="", answer_seconds=self._answer_seconds)
                return self._ask(self._client, tables)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.disconnect()
            self._client = None

    def _ask(self, client: Any, tables: Iterable[str]) -> StorageFacts:
        database = {"database": self._settings.database}
        ((version, uptime, time_ms, merges, disks, errors, there),) = all_rows(client, _SERVER, database)
        found = {name: TableFacts(*facts) for name, *facts in all_rows(client, _TABLES, database)}
        empty = TableFacts(0, 0, 0, 0, 0, 0, 0, 0)
        present = {name: found.get(name, empty) for name in tables if name in set(there)}
        return StorageFacts(version, uptime, time_ms, merges, tuple(disks), dict(errors), present)
