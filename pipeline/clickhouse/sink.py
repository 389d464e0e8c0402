"""Inserts into ClickHouse: blocks of columns over the native protocol, each with a deduplication token."""

import queue
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np
from clickhouse_driver import Client
from clickhouse_driver import errors as driver_errors
from numpy.typing import NDArray

from pipeline.clickhouse.client import connect, explain, kind_of
from pipeline.clickhouse.codes import COLUMN_REFUSED
from pipeline.clickhouse.coordinates import Source, stored_offsets
from pipeline.clickhouse.deduplication import is_replicated
from pipeline.clickhouse.expired_days import ExpiredDays
from pipeline.clickhouse.insert_check import missing_rows, stored_sessions
from pipeline.clickhouse.live_columns import CheckedTable, read_columns
from pipeline.clickhouse.native import insert_block
from pipeline.clickhouse.pinned_settings import BLOCK_SETTINGS, INSERT_SETTINGS, SILENCE_SECONDS
from pipeline.clickhouse.pulse import Pulse
from pipeline.clickhouse.rights import PROBE, create_probe
from pipeline.clickhouse.ttl import expired_times
from pipeline.columns import Column, Ints, Mask
from pipeline.config import ClickHouseSettings
from pipeline.errors import FailureKind, HaltError

__all__ = ["SILENCE_SECONDS", "Sink"]

T = TypeVar("T")


class Sink:
    """Inserts micro-batches and looks for their rows; several threads may use it, each on a connection of its own.

    Args:
        settings: server and database of the tables.
        comment: value of `log_comment` for every insert, by which the server's lists of queries show it.
        pulse: watches over inserts that get no answer; nothing does without it.
    """

    def __init__(self, settings: ClickHouseSettings, *, comment: str = "", pulse: Pulse | None = None) -> None:
        self.settings = self._settings = settings
        """Server and database of the tables."""
        self._pulse = pulse
        self._insert_settings = {**INSERT_SETTINGS, **({"log_comment": comment} if comment else {})}
        self._idle: queue.SimpleQueue[Client] = queue.SimpleQueue()
        self._checked: dict[str, CheckedTable] = {}
        self._expired_days = ExpiredDays()

    def expect(self, tables: Mapping[str, Mapping[str, str]]) -> None:
        """Refuse inserts into these tables from now on, unless their columns are as given.

        Args:
            tables: ClickHouse type of each column that inserts fill, by table and name.
        """
        for table, types in tables.items():
            self._checked[table] = CheckedTable(table, types, self._settings)

    def insert(
        self, table: str, columns: Mapping[str, Column], token: str, check: Callable[[], None] = lambda: None
    ) -> None:
        """Insert rows as one block; return when the server has stored them.

        Args:
            table: name of a table in the configured database.
            columns: columns by name, all of one length, at least one row.
            token: deduplication token; the server stores a repeated insert with the same token once.
            check: called when the server waits for the rows. Its exception ends the insert with nothing stored. The
                server refuses rows that it doesn't get within twice `SILENCE_SECONDS` after the call.

        Raises:
            HaltError: the table was altered since it was checked (see `expect`); nothing was sent.
            clickhouse_driver.errors.Error, OSError, EOFError: `kind_of` tells the kind of failure. Unless the server
                refused them, the rows may be stored or not; the same insert may be made again.
        """
        client = self._client()
        settings = {**self._insert_settings, "insert_deduplication_token": token}
        self._insert_block(client, table, _insert_into(table, columns), columns, settings, check=check)
        self._idle.put(client)

    def missing_rows(self, table: str, key: str, columns: Mapping[str, Column], *, tried: bool) -> Mask:
        """Return the mask of the rows that the table lacks, by coordinates, as `insert_check.missing_rows` does.

        Raises:
            HaltError: a row policy hides rows of the table.
            clickhouse_driver.errors.Error, OSError, EOFError: as `insert`.
        """
        return self._look(missing_rows, table, key, columns, tried=tried)

    def stored_offsets(self, table: str, source: Source, offsets: Ints, times: Ints) -> NDArray[np.uint64]:
        """Return the offsets that the table has rows of, between the least and the greatest of these.

        See `coordinates.stored_offsets`. Raises: as `missing_rows`.
        """
        return self._look(stored_offsets, table, source, int(offsets.min()), int(offsets.max()), times=times)

    def in_expired_days(self, table: str, times: Ints) -> Mask:
        """Return the mask of the times whose day the table's TTL has expired; see `ExpiredDays`."""
        return self._look(self._expired_days.mask, table, times)

    def stored_sessions(self, table: str, hour: int) -> frozenset[bytes]:
        """Return the sessions that have a row of an hour in an hourly table, as 16 bytes each.

        Args:
            table: name of a table in the configured database, with the columns `hour` and `session_id`.
            hour: first second of the hour, in seconds since 1970.

        Raises:
            HaltError: a row policy hides rows of the table.
            clickhouse_driver.errors.Error, OSError, EOFError: as `insert`.
        """
        return self._look(stored_sessions, table, hour)

    def hour_expired(self, table: str, hour: int, *, certainly: bool) -> bool:
        """True if the TTL of an hourly table has expired the rows of an hour; see `expired_times`.

        Other Args and Raises: as `stored_sessions`.
        """
        return bool(self._look(expired_times, table, "hour", np.array([hour]), certainly=certainly).any())

    def is_replicated(self, table: str) -> bool:
        """True if a replica of the table may not show a stored row yet; also for a shared engine.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: as `insert`.
        """
        return bool(self._look(is_replicated, table))

    def refusal_code(self, table: str, columns: Mapping[str, Column]) -> int | None:
        """Return the error code with which the server refuses these rows for their data; None if it accepts them.

        Nothing is stored: the rows go into a temporary table with the columns and constraints of `table`, which keeps
        no rows.

        Raises:
            HaltError: the table was altered, as in `insert`.
            clickhouse_driver.errors.Error, OSError, EOFError: as `insert`.
        """
        client = self._client()
        client.execute(create_probe(self._settings, table))
        try:
            self._insert_block(client, table, _insert_into(PROBE, columns), columns, BLOCK_SETTINGS)
        except driver_errors.ServerException as error:
            if kind_of(error) is FailureKind.DEAD_LETTER:
                return int(error.code)
            raise
        client.disconnect()  # the server drops the table with its session
        return None

    def close(self) -> None:
        """Disconnect all idle connections."""
        while not self._idle.empty():
            self._idle.get().disconnect()

    def _insert_block(
        self,
        client: Client,
        table: str,
        query: str,
        columns: Mapping[str, Column],
        settings: Mapping[str, Any],
        *,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Insert into a table or into its temporary copy; refuse if the columns aren't the checked ones."""
        checked = self._checked.get(table)
        check_columns = checked.check if checked else lambda _: None
        token = str(settings.get("insert_deduplication_token", ""))
        watch = self._pulse.over(table, client, token) if self._pulse else nullcontext()
        try:
            with watch as query_id:
                insert_block(
                    client, query, columns, settings, query_id=query_id, check=check, check_columns=check_columns
                )
        except driver_errors.ServerException as error:
            if checked and error.code in COLUMN_REFUSED:
                self._name_altered_column(table, checked, error)
            raise

    def _name_altered_column(self, table: str, checked: CheckedTable, error: Exception) -> None:
        """Raise the server's error with the altered column added to its message, if a column was altered."""
        with connect(self._settings) as client:
            columns = read_columns(client, self._settings.database).get(table, {})
        try:
            checked.check(columns)
        except HaltError as altered:
            raise HaltError(f"{explain(error, self._settings)}; {altered}") from error

    def _look(self, look: Callable[..., T], *args: Any, **options: Any) -> T:
        """Make a look-up on an idle connection; after a failure the connection isn't used again."""
        client = self._client()
        found = look(client, *args, **options)
        self._idle.put(client)
        return found

    def _client(self) -> Client:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return connect(self._settings)


def _insert_into(table: str, columns: Iterable[str]) -> str:
    return f"INSERT INTO `{table}` ({', '.join(f'`{name}`' for name in columns)}) VALUES"
