"""How a worker takes partitions over: with what is recorded of them, and from where the log is needed once more."""

import asyncio
from collections.abc import Mapping

from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.types import TP
from mode import Service

from pipeline.errors import ChimeraError, HaltError, UnavailableError
from pipeline.transport.assignment import Holder
from pipeline.transport.batches import PartitionBatches, State, Takeover
from pipeline.transport.commit_metadata import parse

SHORTENED = "so it has lost records that were acknowledged; find out why, then set the group's offset by hand"
_TOPIC_CHECK_SECONDS = 10.0


class Successor(Holder):
    """A consumer that goes on where the former owners of its partitions have got to."""

    async def perform_seek(self) -> None:
        """Go back to the committed offsets, with nothing in flight; if the broker is away, as soon as it's back."""
        self._let_go(set(self._partitions))
        try:
            await super().perform_seek()
            if ours := self._ours():
                await self._take_over(ours)
        except (KafkaError, UnavailableError) as error:
            self.log.warning("Kafka doesn't answer, the partitions will be assigned anew: %r", error)
            await self._thread.rejoin()
        except ChimeraError as error:
            self._halt(error)

    async def _take_over(self, partitions: set[TP]) -> None:
        """Go on where the group has got to: with the ranges in flight that are recorded, as they are recorded.

        Raises:
            KafkaError, UnavailableError: the broker doesn't answer.
            HaltError: what is recorded is unknown to us.
        """
        membership = self._membership
        topic_ids = await asyncio.to_thread(self.options.topic_ids, {tp.topic for tp in partitions})
        beginnings = await self.earliest_offsets(*partitions)
        async with self._recording:  # so that nothing of ours is on its way
            committed = await self._thread.read_commits(partitions)
        if membership != self._membership:
            return  # another assignment has begun, and its turn comes
        states = {
            tp: self._state_of(tp, committed.get(tp), topic_ids[tp.topic]) or State(beginnings[tp], ())
            for tp in partitions
            if tp.topic in topic_ids  # else it was deleted just now
        }
        starts = await self._ask_deriver(
            {
                tp: Takeover(topic_ids[tp.topic], beginnings[tp], states[tp].offset, states[tp].closings)
                for tp in self.options.derived(states)
            }
        )
        for tp, state in states.items():
            start = starts.get(tp, state.offset)
            await self._seek(tp, start)
            if membership != self._membership:
                return
            # The log may end before that; Faust would drop what then comes.
            self._read_offset[tp] = None
            self._partitions[tp] = PartitionBatches(
                tp.topic,
                topic_ids[tp.topic],
                tp.partition,
                state,
                policy=self.options.policies[tp.topic],
                limit=self.options.batches_in_flight,
                start=start,
                agents=1 + len(self.options.derived([tp])),
                on_ack=self._on_ack,
            )

    async def _ask_deriver(self, taken: Mapping[TP, Takeover]) -> Mapping[TP, int]:
        """Where the log is to be read from, not after what is committed.

        Raises:
            HaltError: what is committed isn't there: new records in its place would be taken for replayed ones.
        """
        if self.options.deriver is None:
            return {}
        needed = await self.options.deriver.take_over(taken)
        starts = {tp: min(takeover.committed, max(takeover.beginning, needed[tp])) for tp, takeover in taken.items()}
        replayed = [tp for tp, start in starts.items() if start < taken[tp].committed]
        for tp, end in (await self.highwaters(*replayed)).items() if replayed else ():
            if end < taken[tp].committed:
                raise HaltError(
                    f"{tp.topic}-{tp.partition}: Kafka's log ends at {end}, and {taken[tp].committed} is committed, "
                    f"{SHORTENED}"
                )
        return starts

    def _state_of(self, tp: TP, commit: OffsetAndMetadata | None, topic_id: str) -> State | None:
        """What is recorded of a partition; None when nothing is, or only of a topic that had its name before."""
        if commit is None:
            return None
        where = f"group {self.app.conf.id}, {tp.topic}-{tp.partition}"
        ranges = parse(commit.metadata, where, commit.offset)
        if ranges is not None and ranges.topic_id != topic_id:
            self.log.warning("%s: the topic was created anew and is consumed from its beginning", where)
            return None
        return State(commit.offset, ranges.ends, ranges.closings) if ranges else State(commit.offset, ())

    @Service.task
    async def _watch_topics(self) -> None:
        """Have partitions assigned that we should have and don't, or whose topic has become another one."""
        while self.options.policies and not self.should_stop:
            await self.sleep(_TOPIC_CHECK_SECONDS)
            if not self.flow_active:
                continue
            try:
                there = await self._give_up_topics_made_anew(set(self.options.policies))
            except UnavailableError as error:
                self.log.info("Can't look at the topics' ids: %s", error)
                continue
            await self._thread.notice(there)
            if self.flow_active and self._ours() - self._partitions.keys():
                await self._thread.rejoin()

    async def _give_up_topics_made_anew(self, topics: set[str]) -> set[str]:
        """Let go of the partitions of topics that were deleted and have been created again under their names.

        Returns:
            Those of the topics that there are.

        Raises:
            UnavailableError: the broker doesn't answer.
        """
        try:
            now = await asyncio.to_thread(self.options.topic_ids, topics)
        except HaltError as error:
            self._let_go({tp for tp in self._partitions if tp.topic in topics})
            self._halt(error)
            return set()
        anew = {
            tp
            for tp, batches in self._partitions.items()
            if tp.topic in topics and now.get(tp.topic) not in {None, batches.topic_id}
        }
        if anew:
            self.log.warning("Topics were created anew: %s", ", ".join(sorted({tp.topic for tp in anew})))
            self._let_go(anew)
            await self._thread.rejoin()
        return set(now)

    def _ours(self) -> set[TP]:
        return {tp for tp in self.assignment() if tp.topic in self.options.policies}
