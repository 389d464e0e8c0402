"""Inserts into ClickHouse: blocks of columns over the native protocol, each with a deduplication token."""

import queue
from collections.abc import Mapping, Sequence
from typing import Any

from clickhouse_driver import Client
from clickhouse_driver.block import BlockInfo, ColumnOrientedBlock
from clickhouse_driver.protocol import ClientPacketTypes
from clickhouse_driver.varint import write_varint
from clickhouse_driver.writer import write_binary_str

from pipeline.clickhouse import client_arguments
from pipeline.columns import Column
from pipeline.config import ClickHouseSettings
from pipeline.native import write_block

_INSERT_SETTINGS = {
    # What a deduplication token depends on: the block as it was sent, inserted before the server answers.
    "async_insert": 0,
    "insert_deduplicate": 1,
    # Tables are partitioned by day, and a backfill brings many days at once: refused beyond 100 otherwise, each time.
    "max_partitions_per_insert_block": 0,
}


class _BlockClient(Client):
    """A client whose INSERT takes blocks of columns, and writes them straight from their arrays."""

    def send_data(
        self,
        sample_block: Any,
        data: Sequence[Mapping[str, Column]],
        types_check: bool = False,
        columnar: bool = False,
    ) -> int:
        """Send blocks of columns; overrides the driver's, which wants an object a value."""
        del types_check, columnar
        connection = self.connection
        for columns in data:
            write_varint(ClientPacketTypes.DATA, connection.fout)
            write_binary_str("", connection.fout)
            BlockInfo().write(connection.block_out.fout)
            write_block(connection.block_out.fout, sample_block.columns_with_types, columns)
            connection.block_out.finalize()
            self.receive_profile_events()
        connection.send_data(ColumnOrientedBlock())  # an empty block ends the data
        self.receive_profile_events()
        return sum(len(next(iter(columns.values()))) for columns in data)


class Sink:
    """Inserts micro-batches; may be used from several threads at once, each on a connection of its own.

    Args:
        settings: where the tables are.
    """

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._idle: queue.SimpleQueue[Client] = queue.SimpleQueue()

    def insert(self, table: str, columns: Mapping[str, Column], token: str) -> None:
        """Insert rows as one block; returns when the server has stored them.

        Args:
            table: in the configured database.
            columns: by name, all of one length, at least one row.
            token: a repeated insert with the same token is stored once.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: `kind_of` says what follows. Whether the rows are stored
                is then unknown, unless the server said no; the same insert may be made again.
        """
        client = self._client()
        names = ", ".join(f"`{name}`" for name in columns)
        settings = {**_INSERT_SETTINGS, "insert_deduplication_token": token}
        client.execute(f"INSERT INTO `{table}` ({names}) VALUES", [columns], settings=settings)
        self._idle.put(client)

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
