"""A table of hours in memory: it remembers tokens by day for a while, and its inserts may arrive late."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from pipeline.columns import Column

HOURS_OF_A_DAY = 2
"""Hours of which an insert makes one part."""

Row = tuple[int, int]
"""Partition and hour; each hour of a partition has one row."""


class _UnderWay(NamedTuple):
    sent_at: int
    token: str
    rows: list[Row]


class HourTable:
    """A table like session_stats, on a server.

    Args:
        now: the time.
        silence: time after which rows that were sent arrive no more.
        memory: time for which a token is remembered.
    """

    def __init__(self, now: Callable[[], int], *, silence: int, memory: int) -> None:
        self.rows = Counter[Row]()
        self.answers = list[str]()
        """Answers to the next inserts; later ones are stored."""
        self.tokens = list[str]()
        """Tokens of all inserts, in their order."""
        self._now, self._silence, self._memory = now, silence, memory
        self._known = dict[tuple[int, str], int]()
        self._under_way = list[_UnderWay]()

    def insert(self, _: str, columns: Mapping[str, Column], token: str, check: Callable[[], None]) -> None:
        """Answer as the test says: store, lose the answer before or after a part of the rows, or refuse."""
        answer = self.answers.pop(0) if self.answers else "stored"
        if answer == "busy":
            raise OSError(answer)
        check()
        self.tokens.append(token)
        rows = [_row_of(session) for session in np.asarray(columns["session_id"]).tolist()]
        days = sorted({_day(row) for row in rows})
        arrived = {"stored": days, "silent": days, "half": days[:1], "lost": []}[answer]
        self._arrive(token, [row for row in rows if _day(row) in arrived])
        if answer != "stored":
            self._under_way.append(_UnderWay(self._now(), token, rows))
            raise OSError(answer)

    def arrive_late(self, number: int) -> bool:
        """Let rows that are under way arrive, if there are some that may."""
        self._under_way = [each for each in self._under_way if self._now() - each.sent_at <= self._silence]
        if not self._under_way:
            return False
        late = self._under_way.pop(number % len(self._under_way))
        self._arrive(late.token, late.rows)
        return True

    def stored_sessions(self, _: str, hour: int) -> frozenset[bytes]:
        """Return the sessions with a row in an hour."""
        return frozenset(session_of(row) for row in self.rows if row[1] == hour)

    def hour_expired(self, _: str, __: int, *, certainly: bool) -> bool:
        """Tell that no hour is expired."""
        return certainly and False

    def is_replicated(self, _: str) -> bool:
        """Tell that no other server has the table."""
        return False

    def _arrive(self, token: str, rows: list[Row]) -> None:
        now = self._now()
        for day in sorted({_day(row) for row in rows}):
            if now - self._known.get((day, token), -1000) > self._memory:
                self._known[day, token] = now  # a token that is known isn't renewed
                self.rows.update(row for row in rows if _day(row) == day)


def session_of(row: Row) -> bytes:
    """Return the session of a row."""
    return bytes(row) + bytes(14)


def rows_of(row: Row) -> dict[str, Any]:
    """Return a row as columns."""
    return {"hour": np.array([row[1]]), "session_id": np.frombuffer(session_of(row), "V16")}


def _row_of(session: bytes) -> Row:
    return session[0], session[1]


def _day(row: Row) -> int:
    return row[1] // HOURS_OF_A_DAY
