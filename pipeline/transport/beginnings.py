"""Partitions that would be consumed from the beginning of their log although the log isn't new to the group.

The group has committed nothing of them, or its commit is of another topic. Either may be right: a first start, a
partition that was added, a topic that was created anew. It may also store a whole log again. The app is asked, because
it knows the tables.
"""

import asyncio
from collections.abc import Mapping, Sequence

from pipeline.errors import UnavailableError
from pipeline.transport.broker import Beginning, Suspicion, TopicPartition
from pipeline.transport.context import Context
from pipeline.transport.topics import Topics


class Beginnings:
    """Asks the app before partitions are consumed from the beginning of their logs.

    Args:
        context: broker and options.
        topics: knows which topics were created anew.
    """

    def __init__(self, context: Context, topics: Topics) -> None:
        self._broker = context.broker
        self._options = context.options
        self._topics = topics
        self._committed: dict[TopicPartition, str] = {}

    def note_commits(self, topic_ids: Mapping[TopicPartition, str]) -> None:
        """Remember that this worker has committed offsets of these partitions, of topics with these ids."""
        self._committed.update(topic_ids)

    async def check(self, begun: Mapping[TopicPartition, int], topic_ids: Mapping[str, str]) -> None:
        """Check that nothing is stored of partitions without a commit.

        Kafka forgets the commits of a topic that is deleted. A topic that was created anew while this worker ran is
        new.

        Args:
            begun: first offset of each such log.
            topic_ids: current ids of the topics.

        Raises:
            HaltError: their records would be stored a second time.
            UnavailableError: a server doesn't answer.
        """
        ends = await self._broker.highwaters(begun) if begun else {}
        suspects = []
        for tp, offset in sorted(begun.items()):
            if suspicion := self._suspicion(tp, has_records=ends[tp] > offset, topic_id=topic_ids[tp.topic]):
                suspects.append(Beginning(tp, offset, suspicion))
        await self._ask(suspects)

    def _suspicion(self, tp: TopicPartition, *, has_records: bool, topic_id: str) -> Suspicion | None:
        if self._committed.get(tp) == topic_id:
            return Suspicion.VANISHED
        return Suspicion.UNCOMMITTED if has_records and not self._topics.created_anew(tp.topic) else None

    async def _ask(self, suspects: Sequence[Beginning]) -> None:
        if not suspects:
            return
        try:
            await asyncio.to_thread(self._options.check_beginnings, suspects)
        except UnavailableError:
            await asyncio.sleep(self._options.retry_seconds)  # the group is rebalanced for each attempt
            raise
