"""Member of a consumer group that gets its records as micro-batches: the parts of the transport, put together."""

from collections.abc import Awaitable, Callable, Mapping

from pipeline.transport.beginnings import Beginnings
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
        self._flow = context.flow
        self.topics = Topics(context)
        beginnings = Beginnings(context, self.topics)
        self.commits = Commits(context, beginnings, on_commit)
        self.rebalance = Rebalance(context, self.commits, self.topics, beginnings)
        self.fetching = Fetching(context, self.commits, self.topics)
        self.release = Release(context)

    # Faust calls these in a rebalance and at a stop; its own steps are arguments, so that their order is here.

    async def revoke(
        self,
        partitions: set[TopicPartition],
        drain: Callable[[], Awaitable[None]],
        commit: Callable[[], Awaitable[bool]],
    ) -> None:
        """Wait for the agents and commit, while this worker owns the partitions; then let them go.

        Args:
            partitions: partitions that the group takes from this worker.
            drain: Faust's step: it waits for the agents, no longer than `release.drain` allows, and commits.
            commit: Faust's commit, which takes in its own topics too.
        """
        self.release.begin()
        await drain()
        await commit()  # the commit of `drain` does nothing if another one is under way
        await self.release.let_go(partitions)

    async def assign(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """Stop delivery and act as the new member from now on; `take_over` follows when Faust is ready.

        Args:
            prepare: Faust's step, which gets its own topics ready; it may call `take_over`.
        """
        self._flow.stop_flow()  # the flow of a member without partitions is open until now
        self.assignment.begin(self.broker.membership)
        self.release.end()
        await prepare()

    async def take_over(self, seek_to_committed: Callable[[], Awaitable[None]]) -> None:
        """Take the assigned partitions over; see `Rebalance.run`."""
        await self.rebalance.run(seek_to_committed)

    async def stop(self, drain: Callable[[], Awaitable[None]]) -> None:
        """Wait for the agents and commit; then let all partitions go.

        Args:
            drain: Faust's step, as for `revoke`.
        """
        await drain()
        await self.release.let_go_of_all()
