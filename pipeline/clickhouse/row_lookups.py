"""Look-ups of rows by their coordinates, for several threads at once."""

import queue
from typing import Any

import numpy as np
from clickhouse_driver import Client
from numpy.typing import NDArray

from pipeline.clickhouse.client import connect
from pipeline.clickhouse.coordinates import Source, stored_offsets
from pipeline.clickhouse.row_policies import check_all_rows_seen
from pipeline.clickhouse.ttl import expired_times
from pipeline.columns import Mask
from pipeline.config import ClickHouseSettings


class RowLookups:
    """Looks for rows of tables with coordinates; each thread has a connection of its own.

    Args:
        settings: server and database of the tables.
    """

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._idle: queue.SimpleQueue[Client] = queue.SimpleQueue()

    def missing(self, table: str, source: Source, offsets: NDArray[Any], times: NDArray[np.int64]) -> Mask:
        """Return the mask of the rows that a table lacks.

        Args:
            table: name of a table in the configured database.
            source: partition of a topic.
            offsets: ascending.
            times: `ts` of each row, in ms.

        Raises:
            HaltError: a row policy hides rows of the table.
            clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
        """
        client = self._client()
        stored = stored_offsets(client, table, source, int(offsets[0]), int(offsets[-1]), times=times)
        missing: Mask = ~np.isin(offsets, stored)
        if missing.any():
            check_all_rows_seen(client, table)
        self._idle.put(client)
        return missing

    def expired(self, table: str, times: NDArray[np.int64]) -> Mask:
        """Return the mask of the times in ms whose rows the table's TTL has expired by now; see `expired_times`.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
        """
        client = self._client()
        expired = expired_times(client, table, "ts", times)
        self._idle.put(client)
        return expired

    def close(self) -> None:
        """Disconnect all idle connections."""
        while not self._idle.empty():
            self._idle.get().disconnect()

    def _client(self) -> Client:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return connect(self._settings)
