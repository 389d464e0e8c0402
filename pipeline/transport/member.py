"""Member of a consumer group that gets its records as micro-batches: the parts of the transport, put together."""

from collections.abc import Callable, Mapping

from pipeline.transport.broker import TopicPartition
from pipeline.transport.commits import Commits
from pipeline.transport.context import Context
from pipeline.transport.fetching import Fetching
from pipeline.transport.rebalance import Rebalance
from pipeline.transport.release import Release
from pipeline.transport.topics import Topics


class GroupMember:
    """The parts of the transport; made without Faust, and without a broker.

    Args:
        context: broker, options, and an assignment without partitions.
        on_commit: called with the committed offsets.
    """

    def __init__(
        self, context: Context, on_commit: Callable[[Mapping[TopicPartition, int]], None] = lambda _: None
    ) -> None:
        self.broker = context.broker
        self.assignment = context.assignment
        self.topics = Topics(context)
        self.commits = Commits(context, on_commit)
        self.rebalance = Rebalance(context, self.commits, self.topics)
        self.fetching = Fetching(context, self.commits, self.topics)
        self.release = Release(context)
