"""Storage of closed hours in session_stats: each row once, whichever worker stores it, and however often.

The rows of an hour of a partition are the same for every worker, so they have a token that names topic, partition and
hour. ClickHouse forgets a token in time, and a recovery may go back further than that. So a worker first looks for rows
that may be stored already, by hour and session.

Hours that nobody can have stored yet may go into one joint insert, of several partitions. Its token is new, and is
committed beside the offsets before the insert begins. As long as a partition's committed state names a joint insert,
its rows are sent only under the joint insert's token; without a name, only under the tokens of its hours. Decision 70
has the proof.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial

import numpy as np

from pipeline import metrics
from pipeline.clickhouse.block_budget import BlockBudget
from pipeline.clickhouse.repeated_insert import RepeatedInsert
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column, Mask
from pipeline.retry import Held, Retry, lease_clock
from pipeline.rollup.joint_insert import ClosingInsert, FirstInsert, HeldTogether, token_of
from pipeline.transport.commit_metadata import JointInsert
from pipeline.transport.partition import PartitionBatches

MAX_ROWS = 100_000
"""Rows of one block, at most."""


class Emission:
    """Stores closed hours.

    Args:
        sink: server and database of session_stats.
        retry: runs the inserts; its `renew` is by `renew_together`.
        pool: threads to insert in.
        max_rows: rows of one block, at most.
        budget: makes inserts wait for their share of the deduplication window.
        repeat_seconds: time for which a joint insert is repeated after rows may have been sent.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        sink: Sink,
        retry: Retry,
        pool: Executor,
        *,
        max_rows: int = MAX_ROWS,
        budget: BlockBudget | None = None,
        repeat_seconds: float = 5.0,
        clock: Callable[[], float] = lease_clock,
    ) -> None:
        self._sink = sink
        self._retry = retry
        self._pool = pool
        self._budget = budget
        self._repeat_seconds = repeat_seconds
        self._clock = clock
        self._replicated: bool | None = None
        self.max_rows = max_rows

    async def may_join(self, held: Held) -> bool:
        """Tell whether hours may be joined: not if a replica that lags may hide the rows of a joint insert.

        Raises: as `store`.
        """
        if self._replicated is None:
            self._replicated = await self._retry.run(held, partial(self._sink.is_replicated, TABLE), self._pool)
        return not self._replicated

    async def store(self, held: PartitionBatches, token: str, rows: Mapping[str, Column], *, again: bool) -> None:
        """Store the rows of one hour of a partition beside whose offset no joint insert is named.

        Args:
            held: the partition.
            token: names topic, partition and hour.
            rows: all rows of the hour, sorted.
            again: True if another insert may have stored them.

        Raises:
            LostPartitionError: another worker owns the partition.
            ChimeraError, clickhouse_driver.errors.Error: the worker has to stop.
        """
        for number, block in enumerate(self._blocks(rows)):
            insert = RepeatedInsert(
                self._sink,
                TABLE,
                block,
                f"{token}/{number}",
                find=self._find_missing,
                check=partial(self._check, held, {held: None}),
                look_first=again,
                look_after=again,
                pay=self._bill(held),
            )
            metrics.ROWS_INSERTED.labels(TABLE).inc(await self._retry.run(held, insert.attempt, self._pool))

    async def close_joint_insert(
        self, held: PartitionBatches, joint_insert: JointInsert, rows: Mapping[str, Column]
    ) -> bool:
        """Insert the rows of one hour under the token of the joint insert that is named beside the offset.

        Nothing of the joint insert arrives after that, on the day of this hour.

        Returns:
            True if all rows are stored. False if the token was known for their day; they go under their own token then.

        Raises: as `store`.
        """
        stored = True
        for block in self._blocks(rows):
            insert = ClosingInsert(
                self._sink,
                block,
                token_of(joint_insert.name),
                find=self._find_missing,
                check=partial(self._check, held, {held: joint_insert}),
                pay=self._bill(held),
            )
            stored &= await self._retry.run(held, insert.attempt, self._pool)
        return stored

    async def store_jointly(
        self, joint_inserts: Mapping[PartitionBatches, JointInsert], rows: Sequence[Mapping[str, Column]]
    ) -> bool:
        """Store hours of several partitions that nobody has stored yet, as one block.

        Args:
            joint_inserts: the joint insert as it is named beside the offset of each partition.
            rows: the rows of each hour; all together are no more than a block has.

        Returns:
            True if they are stored. False if an attempt has failed that may have stored them, or some of them:
            `close_joint_insert` then has to look for each hour.

        Raises:
            LostPartitionError: another worker owns one of the partitions; the rows may be stored.
            ChimeraError, clickhouse_driver.errors.Error: the worker has to stop.
        """
        held = HeldTogether(tuple(joint_inserts))
        (name,) = {joint_insert.name for joint_insert in joint_inserts.values()}
        block = {column: np.concatenate([np.asarray(hour[column]) for hour in rows]) for column in rows[0]}
        await self._retry.run(held, partial(self._bill(held.parts[0]), block), self._pool)
        insert = FirstInsert(
            self._sink,
            block,
            token_of(name),
            check=partial(self._check, held, joint_inserts),
            repeat_seconds=self._repeat_seconds,
            clock=self._clock,
        )
        stored = await self._retry.run(held, insert.attempt, self._pool)
        metrics.ROWS_INSERTED.labels(TABLE).inc(len(block["hour"]) if stored else 0)
        return stored

    def _blocks(self, rows: Mapping[str, Column]) -> Iterator[dict[str, Column]]:
        for start in range(0, len(np.asarray(rows["hour"])), self.max_rows):
            yield {name: np.asarray(column)[start : start + self.max_rows] for name, column in rows.items()}

    def _check(self, held: Held, joint_inserts: Mapping[PartitionBatches, JointInsert | None]) -> None:
        """Check the lease, and the invariant: the next owner of the rows expects them under this token."""
        self._retry.check_lease(held)
        for part, joint_insert in joint_inserts.items():
            assert part.is_named(joint_insert), f"{part!r} isn't committed with {joint_insert}"

    def _bill(self, held: PartitionBatches) -> Callable[[Mapping[str, Column]], None]:
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
