"""Insert of rows that may have to be repeated: each attempt goes on where the one before it failed."""

from collections.abc import Callable, Mapping
from typing import Protocol

from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column, Mask, select
from pipeline.errors import HaltError

_MOST_TURNS = 5


class Find(Protocol):
    """Gives the mask of the rows that a table lacks."""

    def __call__(self, columns: Mapping[str, Column], *, tried: bool) -> Mask:
        """Return the mask.

        Args:
            columns: rows to look for.
            tried: True if they were inserted right before: the server has stored them, or dropped them for a known
                token.
        """
        ...


class RepeatedInsert:
    """Insert of rows of which a part may be stored already.

    The caller calls `attempt` until it returns. Each attempt continues where the last one failed. If an insert failed
    before the server got a row, the look-up before it isn't repeated. If a look-up failed, the insert before it isn't
    repeated. So on a server that refuses many queries, each successful query is progress.

    Each turn has a token of its own: `token` in turn 0, then `token/1`, `token/2` and so on. A worker that repeats this
    uses the same tokens.

    Args:
        sink: server and database of the table.
        table: name of a table in that database.
        columns: columns by name, all of one length, at least one row.
        token: deduplication token; the server stores a repeated insert with the same token once.
        find: rows that the table lacks, among those of the turn before.
        check: called before each insert, and when the server waits for its rows. Its exception ends the attempt with
            nothing stored.
        look_first: True to look for the rows before the first insert.
        look_after: True to look for the rows after the first insert, too, since its token may be known without its
            rows. After an attempt that may have stored rows, both look-ups are made in any case.
        pay: called with the rows before the first insert of each turn; it may raise, which ends the attempt.
    """

    def __init__(
        self,
        sink: Sink,
        table: str,
        columns: Mapping[str, Column],
        token: str,
        *,
        find: Find,
        check: Callable[[], None],
        look_first: bool,
        look_after: bool,
        pay: Callable[[Mapping[str, Column]], None] = lambda _: None,
    ) -> None:
        self._sink = sink
        self._table = table
        self._columns = columns
        self._token = token
        self._find = find
        self._check = check
        self._must_look = look_first
        self._look_after = look_after
        self._inserted = False  # in this turn
        self._turn = 0
        self._most_rows = 0
        self._pay = pay
        self._paid_turn = -1

    def attempt(self) -> int:
        """Insert the rows that are missing, until none is; return the most rows of one turn.

        Raises:
            HaltError: rows are still missing after five turns, or the table was altered.
            clickhouse_driver.errors.Error, OSError, EOFError: `kind_of` tells the kind of failure. The rows may be
                stored or not; attempt it again.
        """
        while True:
            if self._must_look and not self._look():
                return self._most_rows
            self._insert()
            if not self._look_after:
                return self._most_rows
            self._must_look = True

    def _look(self) -> bool:
        """Keep the rows that are missing; False if none is."""
        missing = self._find(self._columns, tried=self._inserted)
        if not missing.any():
            return False
        self._turn += self._inserted
        if self._turn == _MOST_TURNS:
            raise HaltError(
                f"table {self._table}: rows are missing right after each of {_MOST_TURNS} inserts; expected them to "
                "stay: check the table's TTL"
            )
        self._columns = {name: select(column, missing) for name, column in self._columns.items()}
        self._must_look = self._inserted = False
        return True

    def _insert(self) -> None:
        sent = False

        def check_and_send() -> None:
            nonlocal sent
            self._check()
            sent = True

        if self._paid_turn < self._turn:
            self._pay(self._columns)
            self._paid_turn = self._turn
        self._check()
        token = f"{self._token}/{self._turn}" if self._turn else self._token
        try:
            self._sink.insert(self._table, self._columns, token, check_and_send)
        except BaseException:
            if sent:  # the rows may be stored all the same
                self._must_look = self._look_after = True
            raise
        self._inserted = True
        self._most_rows = max(self._most_rows, len(next(iter(self._columns.values()))))
