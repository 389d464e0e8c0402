"""Partitions that this worker holds, and the membership that it holds them with."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

from pipeline.transport.broker import NOBODY, Membership, TopicPartition
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.partition import PartitionBatches


class Assignment:
    """Partitions that this worker holds.

    Args:
        on_ack: called with each acknowledged micro-batch.
        on_let_go: called after partitions were let go; their micro-batches aren't live any more.
    """

    def __init__(
        self,
        on_ack: Callable[[MicroBatch], None] = lambda _: None,
        on_let_go: Callable[[], None] = lambda: None,
    ) -> None:
        self.membership = NOBODY
        """Membership at the last assignment; commits of any other are refused."""
        self._partitions: dict[TopicPartition, PartitionBatches] = {}
        self._on_ack = on_ack
        self._on_let_go = on_let_go
        self._progress = asyncio.Event()

    @property
    def partitions(self) -> Mapping[TopicPartition, PartitionBatches]:
        """Partitions that this worker holds; fewer than the group assigned while some are being taken over."""
        return self._partitions

    @property
    def held_bytes(self) -> int:
        """Bytes of records that wait or are in flight, as they were fetched, of all partitions."""
        return sum(batches.held_bytes for batches in self._partitions.values())

    def begin(self, membership: Membership) -> None:
        """Let all partitions go, and act with another membership from now on."""
        self.let_go(set(self._partitions))
        self.membership = membership

    def hold(self, tp: TopicPartition, batches: PartitionBatches) -> None:
        """Hold a partition that was taken over."""
        self._partitions[tp] = batches

    def let_go(self, partitions: AbstractSet[TopicPartition]) -> None:
        """Close partitions; their micro-batches are left to the next owner."""
        for tp in partitions & self._partitions.keys():
            self._partitions.pop(tp).close()
        self._on_let_go()

    def note_ack(self, batch: MicroBatch) -> None:
        """Note that a micro-batch is acknowledged."""
        self._on_ack(batch)
        self._progress.set()

    async def wait_for_progress(self, seconds: float) -> None:
        """Wait for an acknowledgement, at most this long."""
        self._progress.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._progress.wait(), seconds)
