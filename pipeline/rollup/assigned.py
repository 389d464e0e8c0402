"""A partition that is assigned to the rollup's job: its derivation, its locks and its background tasks."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pipeline.rollup.derivation import Derivation
from pipeline.rollup.recovery import Recovery
from pipeline.transport.broker import TopicPartition
from pipeline.transport.commit_metadata import JointInsert
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.partition import PartitionBatches

T = TypeVar("T")


class RollupConsumer(Protocol):
    """The methods of the transport's consumer that the job uses; see `pipeline.transport.consumer`."""

    def held(self, tp: TopicPartition) -> PartitionBatches | None: ...  # noqa: D102 (documented there, as all below)
    async def close_by_clock(self, tp: TopicPartition, offset: int, hour: int) -> bool: ...  # noqa: D102
    def forget_closings(self, tp: TopicPartition, before: int) -> None: ...  # noqa: D102
    async def name_joint_insert(self, joint_inserts: Mapping[PartitionBatches, JointInsert | None]) -> bool: ...  # noqa: D102


@dataclass(eq=False)
class AssignedPartition:
    """State of one partition, from its take-over until it is dropped. Use `derivation` only under `lock`."""

    tp: TopicPartition
    topic_id: str
    derivation: Derivation
    recovery: Recovery
    snapshots: tuple[int | None, int | None]
    """Offsets of the last two snapshots, the older one first."""
    quiet_since: float
    """Time of the last micro-batch, by the clock for durations."""
    saved_at: float
    """Time of the last snapshot, by the same clock."""
    refused_days: set[int] = field(default_factory=set)
    """Days for which the server knows the joint insert's token, but has no rows of this partition under it."""
    refused_at: float = 0.0
    """Time of the last insert that was refused in this way, by `lease_clock`."""
    saving_seconds: float = 0.0
    """Duration of the last snapshot."""
    dropped: bool = False
    batches: asyncio.Queue[MicroBatch] = field(default_factory=asyncio.Queue)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    saving: asyncio.Lock = field(default_factory=asyncio.Lock)
    storing: asyncio.Lock = field(default_factory=asyncio.Lock)
    closing: asyncio.Lock = field(default_factory=asyncio.Lock)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def changed(self) -> bool:
        """True if the last snapshot lacks something."""
        return self.derivation.offset != self.snapshots[1] or self.derivation.stored_hours > 0

    def held(self, consumer: RollupConsumer) -> PartitionBatches | None:
        """Return the partition as the transport has it; None before it is assigned there and after it is lost."""
        held = None if self.dropped else consumer.held(self.tp)
        return held if held is not None and held.topic_id == self.topic_id else None

    async def pass_empty(self, consumer: RollupConsumer, folding: Executor) -> None:
        """Move past offsets without records that the transport has passed, such as markers of transactions.

        Snapshots and closings by the clock then reach the end of the log.
        """
        async with self.lock:
            if (offset := self.passed(consumer)) is not None:
                await in_thread(folding, self.derivation.pass_to, offset)
                self.recovery.advance(offset)

    def passed(self, consumer: RollupConsumer) -> int | None:
        """Return the offset that the transport has reached without another record; None if there is no such offset."""
        held = self.held(consumer)
        offset = held.idle_at if held is not None else None
        return offset if offset is not None and offset > self.derivation.offset else None

    def drop(self) -> None:
        """Cancel the background tasks."""
        self.dropped = True
        for task in self.tasks:
            task.cancel()


async def in_thread(pool: Executor, work: Callable[..., T], *args: Any) -> T:
    """Run blocking work in a thread of the pool."""
    return await asyncio.get_running_loop().run_in_executor(pool, work, *args)
