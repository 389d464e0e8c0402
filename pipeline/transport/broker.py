"""The broker as the transport uses it: a protocol, and the values that it takes and gives.

`pipeline.transport.adapter` implements the protocol with aiokafka. Unit tests implement it in memory.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, Protocol


class TopicPartition(NamedTuple):
    """Topic and number of a partition; equal to Faust's `TP` and to aiokafka's `TopicPartition`."""

    topic: str
    partition: int


class Commit(NamedTuple):
    """Committed offset of a partition, and the metadata beside it."""

    offset: int
    metadata: str


class Damage(NamedTuple):
    """Batch of a log that can't be read."""

    offsets: range
    fault: str
    """Names the batch, for messages."""


class Fetched(NamedTuple):
    """Stretch of a log that was fetched without a break, and its records.

    An offset may have no record to deliver: a marker of a transaction takes one, and so do records of aborted
    transactions and records that compaction has removed.
    """

    first: int
    """First offset of the stretch."""
    next_offset: int
    """Offset after the stretch; the next fetch begins there."""
    records: Sequence[Any] = ()
    """Parts of the log with records, `LogPart`, or records of a topic without a batch policy; there may be none."""
    damage: Damage | None = None
    """Batch at the next offset that can't be read: no fetch gets past it."""


class Membership(NamedTuple):
    """Identity of a group member. The broker refuses commits of a member of an earlier generation."""

    generation: int
    member_id: str

    @property
    def known(self) -> bool:
        """True if this is a member at all. A group without members accepts commits from anyone."""
        return self.generation >= 0


NOBODY = Membership(-1, "")


class Suspicion(enum.Enum):
    """Reason to doubt that a partition is new to the group."""

    UNCOMMITTED = enum.auto()
    """The log has records, and the group has committed nothing."""
    VANISHED = enum.auto()
    """This worker has committed an offset, and the group has none any more."""
    FOREIGN = enum.auto()
    """The committed offset is of a topic with another id, which this worker hasn't seen."""


class BrokerTrouble(NamedTuple):
    """Reason why this worker can't read all its partitions."""

    cause: str
    seconds: float = 0.0
    """Time for which it has lasted."""
    attempts: int = 0
    """Number of failed attempts; 0 if nothing is tried."""


class Beginning(NamedTuple):
    """Partition that would be consumed from the beginning of its log."""

    tp: TopicPartition
    offset: int
    """First offset of the log."""
    suspicion: Suspicion
    foreign_id: str = ""
    """Id of the topic whose offset is committed, if it is another one."""


class Broker(Protocol):
    """Requests to the broker.

    A coroutine raises UnavailableError if the broker doesn't answer in time, and HaltError if an ACL forbids the
    request.
    """

    @property
    def membership(self) -> Membership:
        """Membership that a commit would have now; it doesn't change while partitions are being assigned."""
        ...

    def assigned(self) -> set[TopicPartition]:
        """Return all partitions that the group has assigned to this member."""
        ...

    async def topic_ids(self, topics: Iterable[str]) -> Mapping[str, str]:
        """Return the ids of the topics that exist, by name."""
        ...

    async def read_commits(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, Commit]:
        """Return the group's commits; a partition without a commit is left out, after the broker was asked again."""
        ...

    async def commit(self, membership: Membership, commits: Mapping[TopicPartition, Commit]) -> bool:
        """Commit as this member; False if the broker doesn't know the member any more, and took nothing.

        Raises:
            UnavailableError: no answer; the broker may have taken the commit.
        """
        ...

    async def earliest_offsets(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the first offset of each log."""
        ...

    async def highwaters(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the end of each log, open transactions included: the offset of the next record to be written."""
        ...

    async def at_the_end(self, tp: TopicPartition) -> bool:
        """Tell whether the whole log of a partition has been fetched; records of an open transaction haven't."""
        ...

    async def seek(self, tp: TopicPartition, offset: int) -> None:
        """Fetch a partition from this offset on."""
        ...

    async def fetch(self, partitions: AbstractSet[TopicPartition], seconds: float) -> Mapping[TopicPartition, Fetched]:
        """Return what was fetched of these partitions, or nothing after `seconds`; without any, stay in the group.

        Records of aborted transactions are left out. A record is fetched after all transactions that began before it
        are committed or aborted, so each fetch of the same offsets gives the same records.
        Records that arrive during a rebalance are fetched again after it.
        """
        ...

    async def rejoin(self) -> None:
        """Request a new assignment of the group's partitions."""
        ...

    async def notice(self, topics: Iterable[str]) -> None:
        """Refresh the cluster's metadata if one of these topics is missing in it; the group then assigns the topic."""
        ...


class Flow(Protocol):
    """Delivery of the consumer."""

    @property
    def flow_active(self) -> bool:
        """False during a rebalance and a stop."""
        ...

    @property
    def should_stop(self) -> bool:
        """True when the consumer stops."""
        ...

    def stop_flow(self) -> None:
        """Stop delivery, and clear the agents' queues."""
        ...


class Log(Protocol):
    """Logger of the consumer."""

    def info(self, msg: str, /, *args: Any) -> None: ...  # noqa: D102 (as in logging, like all below)
    def warning(self, msg: str, /, *args: Any) -> None: ...  # noqa: D102
    def error(self, msg: str, /, *args: Any) -> None: ...  # noqa: D102
    def exception(self, msg: str, /, *args: Any) -> None: ...  # noqa: D102
