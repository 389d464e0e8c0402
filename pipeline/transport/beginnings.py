"""Partitions that would be consumed from the beginning of their log although the log isn't new to the group.

The group has committed nothing of them, or its commit is of another topic. Either may be right: a first start, a
partition that was added, a topic that was created anew. It may also store a whole log again. The app is asked, because
it knows the tables.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from pipeline.errors import UnavailableError
from pipeline.transport.asking import PARTITIONS
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
        self._log = context.log
        self._topics = topics
        self._committed: dict[TopicPartition, str] = {}
        self._used_ids: set[str] = set()  # of topics that the group has committed offsets of

    def note_commits(self, topic_ids: Mapping[TopicPartition, str]) -> None:
        """Remember that this worker has committed offsets of these partitions, of topics with these ids."""
        self._committed.update(topic_ids)
        self.note_used(topic_ids.values())

    def note_used(self, topic_ids: Iterable[str]) -> None:
        """Remember that the group has committed offsets of topics with these ids: they aren't new to it any more."""
        self._used_ids.update(topic_ids)

    async def check(
        self,
        begun: Mapping[TopicPartition, int],
        foreign: Mapping[TopicPartition, str],
        topic_ids: Mapping[str, str],
    ) -> dict[TopicPartition, int]:
        """Check that nothing is stored of partitions without a commit, or with one of another topic.

        A topic that was created anew while this worker ran is new until the group has committed an offset of it. Kafka
        forgets the commits of a topic that is deleted, but a worker that didn't know yet may have committed once more.

        The partitions without suspicion needn't wait for a server that doesn't answer the app.

        Args:
            begun: first offset of each such log.
            foreign: topic ids in those commits that are of another topic.
            topic_ids: current ids of the topics.

        Returns:
            Logs that may be consumed; none that the app couldn't check, because a server didn't answer it.

        Raises:
            HaltError: their records would be stored a second time.
            UnavailableError: the broker doesn't answer.
        """
        ends = await self._broker.highwaters(begun) if begun else {}
        suspects = []
        for tp, offset in sorted(begun.items()):
            has_records = ends[tp] > offset
            if suspicion := self._suspicion(tp, has_records=has_records, foreign=foreign, topic_id=topic_ids[tp.topic]):
                suspects.append(Beginning(tp, offset, suspicion, foreign.get(tp, "")))
        unchecked = set() if await self._answered(suspects) else {suspect.tp for suspect in suspects}
        for tp, foreign_id in sorted((tp, foreign[tp]) for tp in foreign.keys() - unchecked):
            self._log.warning(
                "%s-%d is consumed from its beginning: the committed offset is of a topic with another id, %s",
                *(tp.topic, tp.partition, foreign_id),
            )
        return {tp: offset for tp, offset in begun.items() if tp not in unchecked}

    def _suspicion(
        self, tp: TopicPartition, *, has_records: bool, foreign: Mapping[TopicPartition, str], topic_id: str
    ) -> Suspicion | None:
        if tp in foreign:
            return None if self._topics.knew(tp.topic, foreign[tp]) else Suspicion.FOREIGN
        if self._committed.get(tp) == topic_id:
            return Suspicion.VANISHED
        new = self._topics.created_anew(tp.topic) and topic_id not in self._used_ids
        return Suspicion.UNCOMMITTED if has_records and not new else None

    async def _answered(self, suspects: Sequence[Beginning]) -> bool:
        """Ask the app; False if a server doesn't answer it. The group then assigns the partitions anew, later."""
        try:
            if suspects:
                await asyncio.to_thread(self._options.check_beginnings, suspects)
        except UnavailableError as error:
            names = ", ".join(f"{tp.topic}-{tp.partition}" for tp, *_ in suspects)
            cause = f"{names}: not consumed until it is known whether their records are stored already: {error}"
            self._options.troubles.report(PARTITIONS, cause, step=self)
            return False
        self._options.troubles.end(PARTITIONS, step=self)
        return True
