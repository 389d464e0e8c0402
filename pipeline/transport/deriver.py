"""A deriver: a second consumer of the same micro-batches, whose state is a function of the log."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from pipeline.transport.broker import TopicPartition
from pipeline.transport.commit_metadata import Closing


class Takeover(NamedTuple):
    """State of a partition that is assigned to this worker."""

    topic_id: str
    beginning: int
    """First offset of the log."""
    committed: int
    """Committed offset; all records below it are stored."""
    closings: tuple[Closing, ...]
    """Committed closings by the clock, of earlier owners."""
    delivered: int
    """Offset after the last range that an earlier owner committed: it may have derived from all records below."""


class Deriver(Protocol):
    """Derives something from topics, beside ingest.

    Its agent gets the same micro-batch objects as ingest's agent, and acknowledges them too.
    """

    @property
    def topics(self) -> frozenset[str]:
        """Topics it derives from; each has a batch policy."""
        ...

    async def take_over(self, taken: Mapping[TopicPartition, Takeover]) -> Mapping[TopicPartition, int]:
        """Get ready for partitions before their records arrive; cancelled if a new assignment begins.

        Returns:
            Offset of the first record that each partition needs.

        Raises:
            UnavailableError: a later attempt may succeed; the partitions are assigned anew.
            ChimeraError: going on makes no sense.
        """
        ...

    def missed(self, tp: TopicPartition, records: int) -> None:
        """Note that retention deleted so many stored records before they were replayed."""
        ...

    async def release(self, partitions: set[TopicPartition]) -> None:
        """Finish work on partitions that this worker still owns and is about to lose; cancelled when time is up."""
        ...
