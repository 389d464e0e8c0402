"""Inserts under the token of a joint insert, whose name is committed beside the offset of each of its partitions.

The server keeps a token for each day of an insert. The first insert under a token that has rows of a day takes that
day. The server drops all rows of that day in later inserts under the token. docs/decisions/0070 says why that is exact.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.clickhouse.repeated_insert import Find
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column, select
from pipeline.retry import Held, Renew, lease_clock
from pipeline.transport.partition import PartitionBatches


def token_of(name: str) -> str:
    """Return the deduplication token of a joint insert."""
    return f"joint/{name}"


@dataclass(frozen=True, eq=False, slots=True)
class HeldTogether:
    """Several partitions, for a step that needs all of them."""

    parts: Sequence[PartitionBatches]

    @property
    def topic(self) -> str:
        """Topic of the first one."""
        return self.parts[0].topic

    @property
    def partition(self) -> int:
        """Number of the first one."""
        return self.parts[0].partition

    @property
    def partitions(self) -> str:
        """Numbers of all of them, for the log."""
        return ",".join(str(part.partition) for part in self.parts)

    @property
    def live(self) -> bool:
        """True while this worker owns all of them."""
        return all(part.live for part in self.parts)

    @property
    def committed_at(self) -> float:
        """Time of the last commit of the one whose commit is the oldest."""
        return min(part.committed_at for part in self.parts)


def renew_together(renew: Renew) -> Renew:
    """Return a function that renews each of several partitions."""

    async def renew_each(held: Held) -> bool:
        parts: Sequence[Held] = held.parts if isinstance(held, HeldTogether) else [held]
        for part in parts:
            if not await renew(part):
                return False
        return True

    return renew_each


class FirstInsert:
    """A joint insert by the worker that has named it: all rows as one block, the same in each attempt.

    It is repeated without a look at the table, so only for a while: the server may forget a token after the horizon of
    its window.

    Args:
        sink: server and database of session_stats.
        block: rows of all partitions.
        token: token of the joint insert.
        check: as of `RepeatedInsert`.
        repeat_seconds: time for which it is repeated after rows may have been sent.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        sink: Sink,
        block: Mapping[str, Column],
        token: str,
        *,
        check: Callable[[], None],
        repeat_seconds: float,
        clock: Callable[[], float] = lease_clock,
    ) -> None:
        self._sink = sink
        self._block = block
        self._token = token
        self._check = check
        self._repeat_seconds = repeat_seconds
        self._clock = clock
        self._sent_at: float | None = None
        self._attempts = 0

    def attempt(self) -> bool:
        """Insert; False if an earlier attempt may have stored rows: each hour has to be looked for then.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: as `RepeatedInsert.attempt`.
        """
        if self._sent_at is not None and self._clock() - self._sent_at > self._repeat_seconds:
            return False
        self._check()
        self._sink.insert(TABLE, self._block, self._token, self._check_and_send)
        return self._attempts == 1

    def _check_and_send(self) -> None:
        self._check()
        self._attempts += 1
        if self._sent_at is None:
            self._sent_at = self._clock()


class ClosingInsert:
    """Insert of one hour's rows under a joint insert's token; afterwards, the joint insert stores no rows on that day.

    Either this insert stores its rows, or the token was already known for their day, and the server keeps refusing it.

    Args:
        sink: server and database of session_stats.
        rows: rows of the hour.
        token: token of the joint insert.
        find: as of `RepeatedInsert`.
        check: as of `RepeatedInsert`.
        pay: called with the rows before the insert; it may raise, which ends the attempt.
    """

    def __init__(
        self,
        sink: Sink,
        rows: Mapping[str, Column],
        token: str,
        *,
        find: Find,
        check: Callable[[], None],
        pay: Callable[[Mapping[str, Column]], None],
    ) -> None:
        self._sink = sink
        self._rows = rows
        self._token = token
        self._find = find
        self._check = check
        self._pay = pay
        self._paid = self._inserted = False

    def attempt(self) -> bool:
        """Look for the rows, insert what is missing, and look again; False if rows are missing then.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: as `RepeatedInsert.attempt`.
        """
        missing = self._find(self._rows, tried=self._inserted)
        if missing.any() and not self._inserted:
            rows = {name: select(column, missing) for name, column in self._rows.items()}
            if not self._paid:
                self._pay(rows)
                self._paid = True
            self._check()
            self._sink.insert(TABLE, rows, self._token, self._check)
            self._inserted = True
            missing = self._find(self._rows, tried=True)
        return not missing.any()
