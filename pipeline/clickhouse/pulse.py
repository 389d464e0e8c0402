"""Questions to ClickHouse beside the inserts: does it answer, does it take rows, does it still work at an insert?

A server that is frozen keeps its connections and says nothing. An insert may take minutes, so a short timeout would
give up inserts that go on. So a thread asks on a connection of its own, every two seconds and with a short timeout:
- Without an answer, the server is in trouble, and so is each insert that waits. The inserts go on waiting: the server
  may go on, and a lost connection ends them.
- With an answer, the thread asks for each waiting insert by its id: the server refuses a second query with a running
  id. If the server twice in a row runs no such query, the thread takes the insert's answer for lost, and closes its
  connection. The insert is then a failed attempt. The next attempt has the same token, so it does no harm if the server
  has stored the rows. The thread may be wrong, since several servers behind one address may have the same name. So the
  next attempt has twice the time before the thread asks for it: an insert gets through, however long it takes.
- Tables that got no rows for a while get an insert without rows, which finds what the next rows would: rights that were
  taken away, a read-only table, too many parts.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import structlog
from clickhouse_driver import Client
from clickhouse_driver import errors as driver_errors

from pipeline.clickhouse.client import NO_ANSWER, cause_of, connect, label_of
from pipeline.clickhouse.rights import try_insert
from pipeline.config import ClickHouseSettings
from pipeline.troubles import Troubles

PART = "ClickHouse"
"""Part of the server's own trouble."""

_FAILURES = (driver_errors.Error, OSError, EOFError)
_ASKED = {"replace_running_query": 0}  # a profile may have it on, and the question would end the insert


@dataclass(slots=True, eq=False)
class _Waiting:
    """Insert without an answer yet."""

    table: str
    client: Client
    token: str
    patience_seconds: float
    since: float
    id: str = field(default_factory=lambda: f"chimera-{uuid4()}")
    unknown: int = 0  # questions in a row to which the server said that it runs no such query


class Pulse:
    """Asks the server again and again, in a thread of its own.

    Args:
        settings: server and login.
        troubles: told of what the answers say.
        pause_seconds: time between two questions.
        answer_seconds: time that the server has for an answer.
        patience_seconds: time that an insert has before the server is asked for it; twice that after it was given up.
        quiet_seconds: time after which a table is tried that got no rows meanwhile.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        settings: ClickHouseSettings,
        troubles: Troubles,
        *,
        pause_seconds: float = 2.0,
        answer_seconds: float = 3.0,
        patience_seconds: float = 3.0,
        quiet_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._troubles = troubles
        self._pause_seconds = pause_seconds
        self._patience_seconds = patience_seconds
        self._quiet_seconds = quiet_seconds
        self._clock = clock
        self._client = connect(settings, answer_seconds=answer_seconds)
        self._tables: Mapping[str, Mapping[str, str]] = {}
        self._answered_at: dict[str, float] = {}  # by table; of its last insert, with or without rows
        self._waiting: set[_Waiting] = set()
        self._patience: dict[str, float] = {}  # seconds by token, of inserts that were given up
        self._lock = threading.Lock()
        self._attempts = 0
        self._silence = ""  # cause, while the server doesn't answer
        self._stopped = threading.Event()
        self._log = structlog.get_logger("chimera.clickhouse")

    def start(self, tables: Mapping[str, Mapping[str, str]]) -> None:
        """Begin to ask.

        Args:
            tables: ClickHouse type of each column that inserts fill, by table and name; these tables are tried.
        """
        self._tables = tables
        threading.Thread(target=self._run, name="clickhouse-pulse", daemon=True).start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()

    @contextmanager
    def over(self, table: str, client: Client, token: str) -> Iterator[str]:
        """Watch over an insert within the context; gives the id that its query has to have.

        Args:
            table: table of the rows.
            client: connection of the insert.
            token: the same for each attempt of an insert.
        """
        with self._lock:
            patience = self._patience.get(token, self._patience_seconds)
            waiting = _Waiting(table, client, token, patience, self._clock())
            self._waiting.add(waiting)
        if silence := self._silence:
            self._report(waiting, silence)
        try:
            yield waiting.id
            self._patience.pop(token, None)
            self._answered_at[table] = self._clock()
            self._troubles.end(table, step=PART)
        finally:
            with self._lock:
                self._waiting.discard(waiting)
            self._troubles.end(table, step=waiting.id)

    def _run(self) -> None:
        while not self._stopped.wait(self._pause_seconds):
            try:
                self.beat()
            except Exception as error:  # noqa: BLE001 (without this thread, readiness would be a guess)
                self._log.exception("a question to ClickHouse failed in an unforeseen way")
                cause = f"ClickHouse {self._settings.address}: {type(error).__name__}; the log has its trace"
                self._troubles.report(PART, cause)
                self._client.disconnect()
        self._client.disconnect()

    def beat(self) -> None:
        """Ask once."""
        try:
            self._client.execute("SELECT 1")
        except _FAILURES as error:
            self._attempts += 1
            cause = cause_of(error, self._settings)
            self._troubles.report(PART, cause, attempts=self._attempts)
            self._silence = cause if label_of(error) == NO_ANSWER else ""
            for waiting in self._inserts(overdue=not self._silence):
                self._report(waiting, cause)
            return
        self._attempts, self._silence = 0, ""
        self._troubles.end(PART)
        for waiting in self._inserts():
            self._troubles.end(waiting.table, step=waiting.id)
        for waiting in self._inserts(overdue=True):
            self._ask_for(waiting)
        for table, columns in self._tables.items():
            if self._clock() - self._answered_at.get(table, float("-inf")) >= self._quiet_seconds:
                self._try(table, columns)

    def _report(self, waiting: _Waiting, cause: str) -> None:
        """Report an insert that waits; not one that has ended meanwhile, whose trouble nobody would end."""
        with self._lock:
            if waiting in self._waiting:
                seconds = self._clock() - waiting.since
                self._troubles.report(waiting.table, cause, step=waiting.id, seconds=seconds, attempts=self._attempts)

    def _inserts(self, *, overdue: bool = False) -> list[_Waiting]:
        """Return the inserts without an answer; only those that have lost their patience, if these are asked for."""
        now = self._clock()
        with self._lock:
            return [each for each in self._waiting if not overdue or now - each.since >= each.patience_seconds]

    def _ask_for(self, waiting: _Waiting) -> None:
        """Ask whether the server still runs an insert; end it here if it doesn't, twice in a row."""
        try:
            self._client.execute("SELECT 1", query_id=waiting.id, settings=_ASKED)
        except _FAILURES:
            waiting.unknown = 0  # it runs (code 216), or the server hasn't said that it doesn't
            return
        if _server(self._client) != _server(waiting.client):  # behind one address are several servers
            self._client.disconnect()  # the next question may reach the right one
            return
        waiting.unknown += 1
        if waiting.unknown > 1:
            self._give_up(waiting)

    def _give_up(self, waiting: _Waiting) -> None:
        with self._lock:
            if waiting not in self._waiting:
                return
            connected: Any = waiting.client.connection.socket
            self._patience[waiting.token] = 2 * waiting.patience_seconds
            if connected is not None:
                with suppress(OSError):
                    # Not the method of a TLS socket, which would forget the encryption first.
                    socket.socket.shutdown(connected, socket.SHUT_RDWR)
        self._log.warning(
            "the server doesn't run an insert any more, and its answer is lost: it is made again",
            table=waiting.table,
            seconds=round(self._clock() - waiting.since, 1),
        )

    def _try(self, table: str, columns: Mapping[str, str]) -> None:
        try:
            try_insert(self._client, table, columns)
        except _FAILURES as error:
            self._troubles.report(table, cause_of(error, self._settings), step=PART)
        else:
            self._answered_at[table] = self._clock()
            self._troubles.end(table, step=PART)


def _server(client: Client) -> str:
    """Name that the server of a connection gives itself; empty if there is no connection."""
    info = client.connection.server_info
    return "" if info is None else str(info.display_name)
