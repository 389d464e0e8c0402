"""A lock on a table's name that dies with its holder: a query with a fixed id, which runs for as long as it is held.

A server runs one query of an id at a time, whoever sends it. The query ends when its connection does, so a process that
is killed leaves no lock behind. Inserts under the lock carry a comment. The next holder waits until no such insert runs
any more: one that a killed holder had sent whole may still be under way.
"""

import threading
import time
from types import TracebackType
from typing import Self

from clickhouse_driver import errors as driver_errors

from pipeline.clickhouse.client import connect, explain
from pipeline.clickhouse.codes import Code
from pipeline.clickhouse.lookups import all_rows
from pipeline.config import ClickHouseSettings
from pipeline.errors import ChimeraError, UnavailableError

_BEAT = "SELECT sleepEachRow(0.1) FROM system.numbers"
_SETTINGS = {
    "max_block_size": 1,
    "max_execution_time": 0,
    "function_sleep_max_microseconds_per_block": 3_000_000,
    "max_rows_to_read": 0,
    "max_result_rows": 0,
    "replace_running_query": 0,
}
_UNDER_WAY = "SELECT count() FROM system.processes WHERE Settings['log_comment'] = %(comment)s"
_PAUSE_SECONDS = 0.1


class TakenError(ChimeraError):
    """Another process holds the lock; nothing was changed."""


class LostLockError(UnavailableError):
    """The server has ended the query that is the lock: another process may hold it by now."""


class TableLock:
    """The lock of one table; a context that holds it.

    Args:
        settings: server and database of the table.
        table: name of the table.
        patience_seconds: longest wait for a killed holder's queries to end.
    """

    def __init__(self, settings: ClickHouseSettings, table: str, *, patience_seconds: float = 10.0) -> None:
        self._settings = settings
        self._table = table
        self._patience_seconds = patience_seconds
        self.comment = f"chimera replay {settings.database}.{table}"
        """Value of `log_comment` for every insert under the lock."""
        self._held = threading.Event()
        self._released = threading.Event()
        self._ended = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            TakenError: another process holds it.
            HaltError: the server refuses the query.
            UnavailableError: the server doesn't answer, or an insert of the last holder doesn't end.
        """
        deadline = time.monotonic() + self._patience_seconds
        while not self._begin():
            if time.monotonic() > deadline:
                raise TakenError(
                    f"table {self._settings.database}.{self._table}: another replay or repair of it is under way; "
                    "expected one at a time: wait for its end, or stop it"
                )
            time.sleep(_PAUSE_SECONDS)
        try:
            self._await_inserts(deadline)
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._let_go()

    def _let_go(self) -> None:
        self._released.set()
        self._ended.wait(self._patience_seconds)

    def check(self) -> None:
        """Check that the lock is still held; call it before each change.

        Raises:
            LostLockError: it isn't.
        """
        if self._ended.is_set():
            raise LostLockError(
                f"ClickHouse at {self._settings.address} has ended the query that locks table {self._table}; run the "
                "same command again, it goes on where this one stopped"
            )

    def _begin(self) -> bool:
        """Start the query; False if another one with its id runs."""
        self._ended.clear()
        self._failure = None
        threading.Thread(target=self._hold, name="table lock", daemon=True).start()
        while not self._held.wait(_PAUSE_SECONDS):
            if self._ended.is_set():
                break
        if self._failure is None:
            return True
        if getattr(self._failure, "code", None) == Code.QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING:
            return False
        raise explain(self._failure, self._settings) from self._failure

    def _hold(self) -> None:
        client = connect(self._settings)
        try:
            for _ in client.execute_iter(_BEAT, query_id=self.comment, settings=_SETTINGS):
                self._held.set()
                if self._released.is_set():
                    break
        except (driver_errors.Error, OSError, EOFError) as error:
            self._failure = error
        finally:
            client.disconnect()
            self._ended.set()

    def _await_inserts(self, deadline: float) -> None:
        with connect(self._settings) as client:
            while all_rows(client, _UNDER_WAY, {"comment": self.comment})[0][0]:
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"ClickHouse at {self._settings.address}: an insert of an earlier replay into table "
                        f"{self._table} still runs; try again when it has ended"
                    )
                time.sleep(_PAUSE_SECONDS)
