"""Topics that were deleted and created again under their names, and topics that are missing in the assignment."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from pipeline.errors import HaltError, UnavailableError
from pipeline.transport.broker import TopicPartition
from pipeline.transport.context import Context


class Topics:
    """Watches the ids of the topics with a batch policy."""

    def __init__(self, context: Context) -> None:
        self._broker = context.broker
        self._assignment = context.assignment
        self._flow = context.flow
        self._options = context.options
        self._log = context.log
        self._seen = defaultdict[str, set[str]](set)  # ids by topic

    async def ids(self, topics: Iterable[str]) -> Mapping[str, str]:
        """Return the ids of the topics that exist, and remember them.

        Raises:
            HaltError, UnavailableError: the broker refuses, or doesn't answer.
        """
        ids = await self._broker.topic_ids(topics)
        for topic, topic_id in ids.items():
            self._seen[topic].add(topic_id)
        return ids

    def knew(self, topic: str, topic_id: str) -> bool:
        """Tell whether a topic of this name has had this id since the worker started."""
        return topic_id in self._seen[topic]

    def created_anew(self, topic: str) -> bool:
        """Tell whether a topic was deleted and created again since the worker started."""
        return len(self._seen[topic]) > 1

    def assigned(self) -> set[TopicPartition]:
        """Return the assigned partitions that come as micro-batches."""
        return {tp for tp in self._broker.assigned() if tp.topic in self._options.policies}

    async def let_go_of_recreated(self, topics: Iterable[str]) -> set[str]:
        """Let go of partitions whose topic was deleted and created again, and have them assigned anew.

        Returns:
            The topics that exist.

        Raises:
            UnavailableError: the broker doesn't answer.
        """
        topics = set(topics)
        try:
            ids = await self.ids(topics)
        except HaltError as error:
            self._assignment.let_go({tp for tp in self._assignment.partitions if tp.topic in topics})
            self._options.stop(error)
            return set()
        recreated = {
            tp
            for tp, batches in self._assignment.partitions.items()
            if tp.topic in topics and ids.get(tp.topic) not in {None, batches.topic_id}
        }
        if recreated:
            names = ", ".join(sorted({tp.topic for tp in recreated}))
            self._log.warning("Topics were created anew: %s", names)
            self._assignment.let_go(recreated)
            await self._broker.rejoin()
        return set(ids)

    async def check(self) -> None:
        """Request a new assignment if a topic was created again, or if assigned partitions aren't held."""
        try:
            existing = await self.let_go_of_recreated(self._options.policies)
        except UnavailableError:
            return  # a broker that is away is a trouble of the membership
        await self._broker.notice(existing)
        if self._flow.flow_active and self.assigned() - self._assignment.partitions.keys():
            await self._broker.rejoin()
