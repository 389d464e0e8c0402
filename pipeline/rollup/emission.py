"""Storage of closed hours in session_stats: each row once, whichever worker stores it, and however often.

The rows of an hour of a partition are the same for every worker, so they have a token that names topic, partition and
hour. ClickHouse forgets a token in time, and a recovery may go back further than that. So a worker first looks for rows
that may be stored already, by hour and session.

Hours that nobody can have stored yet may go into one joint insert, of several partitions. Its token is new, and is
committed beside the offsets before the insert begins. A later owner of a partition knows it, and inserts its own rows
under it first: then the joint insert has arrived, or the server refuses it from now on. decision 70 has the proof.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline import metrics
from pipeline.clickhouse.block_budget import BlockBudget
from pipeline.clickhouse.repeated_insert import RepeatedInsert
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column, Mask
from pipeline.retry import Held, Renew, Retry

MAX_ROWS = 100_000
"""Rows of one block, at most."""


@dataclass(frozen=True, eq=False, slots=True)
class HeldTogether:
    """Several partitions, for a step that needs all of them."""

    parts: Sequence[Held]

    @property
    def topic(self) -> str:
        """Topic of the first one."""
        return self.parts[0].topic

    @property
    def partition(self) -> int:
        """Number of the first one."""
        return self.parts[0].partition

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
        parts = held.parts if isinstance(held, HeldTogether) else [held]
        for part in parts:
            if not await renew(part):
                return False
        return True

    return renew_each


class Emission:
    """Stores closed hours.

    Args:
        sink: server and database of session_stats.
        retry: runs the inserts; its `renew` is by `renew_together`.
        pool: threads to insert in.
        max_rows: rows of one block, at most.
        budget: makes inserts wait for their share of the deduplication window.
    """

    def __init__(
        self,
        sink: Sink,
        retry: Retry,
        pool: Executor,
        *,
        max_rows: int = MAX_ROWS,
        budget: BlockBudget | None = None,
    ) -> None:
        self._sink = sink
        self._retry = retry
        self._pool = pool
        self._budget = budget
        self._replicated: bool | None = None
        self.max_rows = max_rows

    async def may_join(self, held: Held) -> bool:
        """Tell whether hours may be joined: not if a replica that lags may hide the rows of a joint insert.

        Raises: as `store`.
        """
        if self._replicated is None:
            self._replicated = await self._retry.run(held, partial(self._sink.is_replicated, TABLE), self._pool)
        return not self._replicated

    async def store(
        self, held: Held, token: str, rows: Mapping[str, Column], *, again: bool, under_way: str | None = None
    ) -> None:
        """Store the rows of one hour of a partition.

        Args:
            held: the partition.
            token: names topic, partition and hour.
            rows: all rows of the hour, sorted.
            again: True if another insert may have stored them.
            under_way: token of a joint insert that may be under way; `again` must be True then.

        Raises:
            LostPartitionError: another worker owns the partition.
            ChimeraError, clickhouse_driver.errors.Error: the worker has to stop.
        """
        count = len(np.asarray(rows["hour"]))
        for number, start in enumerate(range(0, count, self.max_rows)):
            block = {name: np.asarray(column)[start : start + self.max_rows] for name, column in rows.items()}
            insert = RepeatedInsert(
                self._sink,
                TABLE,
                block,
                f"{token}/{number}",
                find=self._find_missing,
                check=partial(self._retry.check_lease, held),
                look_first=again,
                look_after=again,
                under_way=under_way,
                pay=self._bill(held),
            )
            metrics.ROWS_INSERTED.labels(TABLE).inc(await self._retry.run(held, insert.attempt, self._pool))

    async def store_jointly(self, held: HeldTogether, token: str, rows: Sequence[Mapping[str, Column]]) -> bool:
        """Store hours of several partitions that nobody has stored yet, as one block.

        Args:
            held: the partitions; the token is committed for each.
            token: no other insert has it.
            rows: the rows of each hour; all together are no more than a block has.

        Returns:
            True if they are stored. False if an attempt has failed that may have stored them, or some of them: each
            hour then has to be stored by itself, with this token as `under_way`.

        Raises:
            LostPartitionError: another worker owns one of the partitions; the rows may be stored.
            ChimeraError, clickhouse_driver.errors.Error: the worker has to stop.
        """
        block = {name: np.concatenate([np.asarray(hour[name]) for hour in rows]) for name in rows[0]}
        await self._retry.run(held, partial(self._bill(held.parts[0]), block), self._pool)
        insert = _JointInsert(self._sink, block, token, partial(self._retry.check_lease, held))
        stored = await self._retry.run(held, insert.attempt, self._pool)
        metrics.ROWS_INSERTED.labels(TABLE).inc(len(block["hour"]) if stored else 0)
        return stored

    def _bill(self, held: Held) -> Callable[[Mapping[str, Column]], None]:
        return self._budget.bill(TABLE, held).pay if self._budget else lambda _: None

    def _find_missing(self, columns: Mapping[str, Column], *, tried: bool) -> Mask:
        """Mask of the rows that session_stats lacks; none of an hour that its TTL has expired.

        A TTL may expire only some rows of an hour. Those are inserted once, and may be gone in the next turn.
        """
        hour, sessions = int(np.asarray(columns["hour"])[0]), np.asarray(columns["session_id"])
        if self._sink.hour_expired(TABLE, hour, certainly=not tried):
            return np.zeros(len(sessions), np.bool_)
        stored = self._sink.stored_sessions(TABLE, hour)
        return np.fromiter((session not in stored for session in sessions.tolist()), np.bool_, len(sessions))


class _JointInsert:
    """One insert under a token of its own: it is attempted until the server may have got rows."""

    def __init__(self, sink: Sink, block: Mapping[str, Column], token: str, check: partial[None]) -> None:
        self._sink = sink
        self._block = block
        self._token = token
        self._check = check
        self._sent = False

    def attempt(self) -> bool:
        """Insert; return False, without another insert, if an earlier attempt may have stored rows."""
        if self._sent:
            return False
        self._check()
        self._sink.insert(TABLE, self._block, self._token, self._check_and_send)
        return True

    def _check_and_send(self) -> None:
        self._check()
        self._sent = True
