"""Take over partitions that the group has assigned to this worker, where their earlier owners stopped."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from pipeline.errors import ChimeraError, HaltError, UnavailableError
from pipeline.transport.asking import KAFKA
from pipeline.transport.beginnings import Beginnings
from pipeline.transport.broker import Commit, TopicPartition
from pipeline.transport.commit_metadata import parse
from pipeline.transport.commits import Commits
from pipeline.transport.context import Context
from pipeline.transport.deriver import Takeover
from pipeline.transport.micro_batch import State
from pipeline.transport.partition import PartitionBatches
from pipeline.transport.topics import Topics

SHORTENED = "so it has lost records that were acknowledged; find out why, then set the group's offset by hand"


class Rebalance:
    """Takes partitions over.

    Args:
        context: broker, assignment and options.
        commits: reads the group's commits.
        topics: knows which assigned partitions come as micro-batches.
        beginnings: asked before a partition without a commit is consumed.
    """

    def __init__(self, context: Context, commits: Commits, topics: Topics, beginnings: Beginnings) -> None:
        self._broker = context.broker
        self._assignment = context.assignment
        self._options = context.options
        self._log = context.log
        self._group = context.group
        self._commits = commits
        self._topics = topics
        self._beginnings = beginnings
        self._failed = 0  # attempts in a row

    async def run(self, seek_to_committed: Callable[[], Awaitable[None]]) -> None:
        """Take over all assigned partitions; request a new assignment if the broker doesn't answer.

        Args:
            seek_to_committed: Faust's own seek, of all partitions to their committed offsets.
        """
        self._assignment.let_go(set(self._assignment.partitions))
        try:
            await seek_to_committed()  # a seek that came late would undo those of the takeover
            if partitions := self._topics.assigned():
                await self._take_over(partitions)
            self._failed = 0
            self._options.troubles.end(KAFKA, step=self)
        except UnavailableError as error:
            self._failed += 1
            cause = f"partitions aren't taken over, a new assignment is requested: {error}"
            self._options.troubles.report(KAFKA, cause, step=self, attempts=self._failed)
            await self._broker.rejoin()
        except ChimeraError as error:
            self._options.stop(error)

    async def _take_over(self, partitions: set[TopicPartition]) -> None:
        """Start at the committed offsets, with the committed ranges in flight.

        What must be known first is asked at once: one after the other, the answers took a third of a takeover.

        Raises:
            UnavailableError: the broker doesn't answer.
            HaltError: a commit's metadata is damaged or of an unknown version, or a log would be stored again.
        """
        membership = self._assignment.membership
        topic_ids, beginnings, commits, _ = await asyncio.gather(
            self._topics.ids(self._options.policies),
            self._broker.earliest_offsets(partitions),
            self._commits.read(partitions),
            self._options.before_takeover(),
        )
        if membership != self._assignment.membership:
            return  # a later assignment takes them over
        existing = {tp for tp in partitions if tp.topic in topic_ids}  # a missing topic was deleted just now
        states, foreign = self._committed({tp: commits[tp] for tp in existing & commits.keys()}, topic_ids)
        self._beginnings.note_used(topic_ids[tp.topic] for tp in states)
        begun = {tp: beginnings[tp] for tp in existing - states.keys()}
        begun = await self._beginnings.check(begun, foreign, topic_ids)
        states |= {tp: State(offset, ()) for tp, offset in begun.items()}
        starts = await self._starts(
            {tp: _takeover(topic_ids[tp.topic], beginnings[tp], states[tp]) for tp in self._options.derived(states)}
        )
        for tp, state in states.items():
            start = starts.get(tp, state.offset)
            await self._broker.seek(tp, start)
            if membership != self._assignment.membership:
                return
            self._assignment.hold(tp, self._batches_of(tp, topic_ids[tp.topic], state, start))
        if begun:  # without a commit, a worker that starts later couldn't tell this beginning from a lost commit
            await self._commits.commit(begun)

    def _batches_of(self, tp: TopicPartition, topic_id: str, state: State, start: int) -> PartitionBatches:
        return PartitionBatches(
            tp.topic,
            topic_id,
            tp.partition,
            state,
            policy=self._options.policies[tp.topic],
            limit=self._options.batches_in_flight,
            start=start,
            agents=1 + len(self._options.derived([tp])),
            on_ack=self._assignment.note_ack,
        )

    async def _starts(self, taken: Mapping[TopicPartition, Takeover]) -> Mapping[TopicPartition, int]:
        """Ask the deriver for the first offsets to fetch; none is above the committed offset.

        Raises:
            HaltError: a log ends below the committed offset; new records there would pass for replayed ones.
        """
        if self._options.deriver is None:
            return {}
        needed = await self._options.deriver.take_over(taken)
        starts = {tp: min(takeover.committed, max(takeover.beginning, needed[tp])) for tp, takeover in taken.items()}
        replayed = [tp for tp, start in starts.items() if start < taken[tp].committed]
        for tp, end in (await self._broker.highwaters(replayed)).items() if replayed else ():
            if end < taken[tp].committed:
                raise HaltError(
                    f"{tp.topic}-{tp.partition}: Kafka's log ends at {end}, and {taken[tp].committed} is committed, "
                    f"{SHORTENED}"
                )
        return starts

    def _committed(
        self, commits: Mapping[TopicPartition, Commit], topic_ids: Mapping[str, str]
    ) -> tuple[dict[TopicPartition, State], dict[TopicPartition, str]]:
        """Return the committed states, and, for commits of topics with other ids, these ids.

        Raises:
            HaltError: the metadata is damaged or of an unknown version.
        """
        states, foreign = {}, {}
        for tp, commit in commits.items():
            where = f"group {self._group}, {tp.topic}-{tp.partition}"
            ranges = parse(commit.metadata, where, commit.offset, topic_ids[tp.topic])
            if ranges is None:
                states[tp] = State(commit.offset, ())
            elif ranges.topic_id == topic_ids[tp.topic]:
                states[tp] = State(commit.offset, ranges.ends, ranges.closings, ranges.joint_insert)
            else:
                foreign[tp] = ranges.topic_id
        return states, foreign


def _takeover(topic_id: str, beginning: int, state: State) -> Takeover:
    delivered = max([state.offset, *(end + 1 for end in state.ends)])
    return Takeover(topic_id, beginning, state.offset, state.closings, delivered)
