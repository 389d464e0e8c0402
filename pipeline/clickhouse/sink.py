"""Inserts into ClickHouse: blocks of columns over the native protocol, each with a deduplication token."""

import queue
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from clickhouse_driver import Client
from clickhouse_driver import errors as driver_errors
from clickhouse_driver.block import BlockInfo, ColumnOrientedBlock
from clickhouse_driver.protocol import ClientPacketTypes
from clickhouse_driver.varint import write_varint
from clickhouse_driver.writer import write_binary_str

from pipeline.clickhouse.client import client_arguments, kind_of
from pipeline.clickhouse.insert_check import absent, sessions
from pipeline.clickhouse.native import write_block
from pipeline.columns import Column, Mask
from pipeline.config import ClickHouseSettings
from pipeline.errors import FailureKind

SILENCE_SECONDS = 3
"""How long the server waits for what is missing of an insert; then it refuses all of it. It looks twice."""

_INSERT_SETTINGS = {
    # What a deduplication token depends on: the block as it was sent, inserted before the server answers.
    "async_insert": 0,
    "insert_deduplicate": 1,
    # Tables are partitioned by day, and a backfill brings many days at once: refused beyond 100 otherwise, each time.
    "max_partitions_per_insert_block": 0,
    # A worker that was stopped in the middle of an insert, and goes on much later, is refused.
    "receive_timeout": SILENCE_SECONDS,
}
_PROBE = "probe"


class _BlockClient(Client):
    """A client whose INSERT takes blocks of columns, and writes them straight from their arrays."""

    def send_data(
        self,
        sample_block: Any,
        data: Iterable[Mapping[str, Column]],
        types_check: bool = False,
        columnar: bool = False,
    ) -> int:
        """Send blocks of columns; overrides the driver's, which wants an object a value."""
        del types_check, columnar
        connection, rows = self.connection, 0
        for columns in data:
            rows += len(next(iter(columns.values())))
            write_varint(ClientPacketTypes.DATA, connection.fout)
            write_binary_str("", connection.fout)
            BlockInfo().write(connection.block_out.fout)
            write_block(connection.block_out.fout, sample_block.columns_with_types, columns)
            connection.block_out.finalize()
            self.receive_profile_events()
        connection.send_data(ColumnOrientedBlock())  # an empty block ends the data
        self.receive_profile_events()
        return rows


class Sink:
    """Inserts micro-batches; may be used from several threads at once, each on a connection of its own.

    Args:
        settings: where the tables are.
    """

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._idle: queue.SimpleQueue[Client] = queue.SimpleQueue()

    def insert(
        self, table: str, columns: Mapping[str, Column], token: str, check: Callable[[], None] = lambda: None
    ) -> None:
        """Insert rows as one block; returns when the server has stored them.

        Args:
            table: in the configured database.
            columns: by name, all of one length, at least one row.
            token: a repeated insert with the same token is stored once.
            check: called when the server waits for the rows; what it raises ends the insert, with nothing stored. Rows
                that aren't sent within twice `SILENCE_SECONDS` after it are refused.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: `kind_of` says what follows. Whether the rows are stored
                is then unknown, unless the server said no; the same insert may be made again.
        """

        def block() -> Iterator[Mapping[str, Column]]:
            check()
            yield columns

        client = self._client()
        settings = {**_INSERT_SETTINGS, "insert_deduplication_token": token}
        client.execute(_insert_into(table, columns), block(), settings=settings)
        self._idle.put(client)

    def absent(self, table: str, key: str, columns: Mapping[str, Column]) -> Mask:
        """The rows of a repeated insert that aren't in the table after all: see `pipeline.clickhouse.insert_check`.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: as `insert`.
        """
        client = self._client()
        missing = absent(client, table, key, columns)
        self._idle.put(client)
        return missing

    def sessions(self, table: str, hour: int) -> frozenset[bytes]:
        """The sessions that an hourly table has rows of, in the hour that begins so many seconds after 1970 began.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: as `insert`.
        """
        client = self._client()
        stored = sessions(client, table, hour)
        self._idle.put(client)
        return stored

    def refusal(self, table: str, columns: Mapping[str, Column]) -> int | None:
        """The error code with which the server would refuse these rows for their data; None when it would take them.

        Nothing is stored: the rows go to a table that keeps none, and has the columns and constraints of the one named.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: as `insert`.
        """
        client = self._client()
        client.execute(f"CREATE TEMPORARY TABLE `{_PROBE}` ENGINE=Null AS `{self._settings.database}`.`{table}`")
        try:
            client.execute(_insert_into(_PROBE, columns), [columns])
        except driver_errors.ServerException as error:
            if kind_of(error) is FailureKind.DEAD_LETTER:
                return int(error.code)
            raise
        client.disconnect()  # the table goes with its session
        return None

    def close(self) -> None:
        """Disconnect."""
        while not self._idle.empty():
            self._idle.get().disconnect()

    def _client(self) -> Client:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            settings = self._settings
            return _BlockClient(settings.host, database=settings.database, **client_arguments(settings))


def _insert_into(table: str, columns: Iterable[str]) -> str:
    return f"INSERT INTO `{table}` ({', '.join(f'`{name}`' for name in columns)}) VALUES"
