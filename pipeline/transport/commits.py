"""Commits of the partitions' states: offset, ranges in flight, closings by the clock, joint inserts.

A state is committed as the member that was assigned the partitions, and as no other. The broker refuses a member that
lost them; the worker then lets the partitions go.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from pipeline import metrics
from pipeline.errors import HaltError, UnavailableError
from pipeline.metrics import Stage
from pipeline.retry import Held, lease_clock
from pipeline.transport.asking import KAFKA, until_answered
from pipeline.transport.beginnings import Beginnings
from pipeline.transport.broker import Commit, TopicPartition
from pipeline.transport.commit_metadata import Closing, JointInsert, Ranges
from pipeline.transport.context import Context
from pipeline.transport.micro_batch import State
from pipeline.transport.partition import PartitionBatches


class Commits:
    """Commits the states of the partitions that this worker holds, one commit at a time.

    Args:
        context: broker, and the partitions with the membership to commit as.
        beginnings: told of the partitions that have a commit now.
        on_commit: called with the committed offsets.
    """

    def __init__(
        self,
        context: Context,
        beginnings: Beginnings,
        on_commit: Callable[[Mapping[TopicPartition, int]], None] = lambda _: None,
    ) -> None:
        self._context = context
        self._beginnings = beginnings
        self._broker = context.broker
        self._assignment = context.assignment
        self._log = context.log
        self._on_commit = on_commit
        self._failed = 0  # attempts in a row
        self._lock = asyncio.Lock()  # a later commit must hold a later state

    async def commit(self, also: Iterable[TopicPartition] = ()) -> bool:
        """Commit each state that has changed, in one request; let the partitions go if the broker refuses.

        Args:
            also: partitions to commit even without a change.

        Returns:
            True if something was committed.

        Raises:
            UnavailableError: the broker doesn't answer.
            HaltError: an ACL is missing.
        """
        async with self._lock:
            partitions = self._assignment.partitions
            states = {tp: batches.state for tp, batches in partitions.items() if batches.changed or tp in also}
            if not states:
                return False
            return await self._commit(states)

    async def try_commit(self) -> bool:
        """Commit as `commit` does; a failure is a trouble, and the next call commits the same and more."""
        troubles = self._context.options.troubles
        try:
            done = await self.commit()
        except UnavailableError as error:
            self._failed += 1
            troubles.report(KAFKA, f"offsets aren't committed: {error}", step=self, attempts=self._failed)
            return False
        except HaltError as error:
            self._context.options.stop(error)
            return False
        self._failed = 0
        troubles.end(KAFKA, step=self)
        return done

    async def read(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, Commit]:
        """Read the group's commits while no commit of this worker is under way.

        Raises:
            UnavailableError: the broker doesn't answer.
            HaltError: an ACL is missing.
        """
        async with self._lock:
            return await self._broker.read_commits(partitions)

    async def renew(self, held: Held) -> bool:
        """Commit the state of a partition again, which renews its lease; False if this worker doesn't own it."""
        tp = TopicPartition(held.topic, held.partition)
        await until_answered(lambda: self.commit([tp]), lambda: held.live, self._context)
        return held.live

    async def close_by_clock(self, tp: TopicPartition, offset: int, hour: int) -> bool:
        """Decide and commit that all windows of hours before `hour` are closed from this offset on.

        Returns:
            True if it is committed. If not, nothing is decided: this worker doesn't hold the partition, records of it
            wait or are in flight, `offset` isn't the next offset, the log goes on, or too many closings are kept.

        Raises:
            UnavailableError: the broker doesn't answer, and may have taken the commit; nothing is decided here.
        """
        partition, closing = self._assignment.partitions.get(tp), Closing(offset, hour)
        if partition is None or partition.with_closing(closing) is None or not await self._broker.at_the_end(tp):
            return False
        async with self._lock:
            state = partition.with_closing(closing)
            if state is None:  # records have arrived meanwhile, or the partition was let go
                return False
            # A closing counts when the broker has confirmed it, not before. Without an answer, it may be committed.
            # If the partition moves now, its next owner reads the closing and applies it, and this worker has closed
            # nothing. If this worker goes on, it delivers no record from this offset on before another commit, which
            # leaves the closing out, so nobody has applied it. If the closing were kept here, it would be committed
            # with records that this worker delivers without applying it.
            if not await self._commit({tp: state}):
                return False
            partition.closings = state.closings
            return partition.live  # if it was let go meanwhile, the next owner applies the closing

    def forget_closings(self, tp: TopicPartition, before: int) -> None:
        """Leave closings at lower offsets out of the next commit."""
        if partition := self._assignment.partitions.get(tp):
            partition.forget_closings(before)

    async def name_joint_insert(self, joint_inserts: Mapping[PartitionBatches, JointInsert | None]) -> bool:
        """Commit, beside the offset of each partition, the name of its joint insert, or that it has none.

        The next owner reads from it under which token rows may still arrive. Call it while no insert of these
        partitions is under way. If the committed states are so already, it returns at once. Otherwise it returns when
        the broker has answered for each partition that this worker still holds. Their committed states are certain
        then, also after False.

        Args:
            joint_inserts: joint insert or None, by partition.

        Returns:
            True if this worker holds them all.

        Raises:
            HaltError: an ACL is missing.
        """
        if not all(partition.live for partition in joint_inserts):
            return False
        for partition, joint_insert in joint_inserts.items():
            partition.joint_insert = joint_insert

        def unsure() -> list[TopicPartition]:
            return [
                TopicPartition(partition.topic, partition.partition)
                for partition, joint_insert in joint_inserts.items()
                if partition.live and not partition.is_named(joint_insert)
            ]

        await until_answered(lambda: self.commit(unsure()), lambda: bool(unsure()), self._context)
        assert not unsure()
        return all(partition.live for partition in joint_inserts)

    async def _commit(self, states: Mapping[TopicPartition, State]) -> bool:
        """Commit states; let their partitions go if the broker refuses. Call it under `_lock`."""
        partitions = self._assignment.partitions
        topic_ids = {tp: partitions[tp].topic_id for tp in states}
        commits = {tp: _commit_of(topic_ids[tp], state) for tp, state in states.items()}
        for tp, state in states.items():
            partitions[tp].on_broker.ask(state)
        now = lease_clock()
        with metrics.timed(Stage.COMMIT):
            accepted = await self._broker.commit(self._assignment.membership, commits)
        if not accepted:
            metrics.COMMITS_REFUSED.inc()
            self._log.info("Not committed: the partitions are being reassigned")
            self._assignment.let_go(states.keys())
            return False
        self._beginnings.note_commits(topic_ids)
        for tp in states.keys() & partitions.keys():
            partitions[tp].on_broker.accept(states[tp], now)
        self._on_commit({tp: state.offset for tp, state in states.items()})
        return True


def _commit_of(topic_id: str, state: State) -> Commit:
    return Commit(state.offset, str(Ranges(topic_id, state.ends, state.closings, state.joint_insert)))
