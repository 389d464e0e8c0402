"""Snapshots of assigned partitions, written one after the other."""

from collections.abc import Callable
from concurrent.futures import Executor

import structlog

from pipeline import metrics
from pipeline.errors import UnavailableError
from pipeline.rollup.assigned import AssignedPartition, RollupConsumer, in_thread
from pipeline.rollup.clock import Clock
from pipeline.rollup.store import SnapshotStore


class SnapshotSaver:
    """Writes snapshots, and lets the transport forget the closings that they contain.

    Args:
        store: store of the snapshots.
        consumer: returns the transport's consumer.
        folding: the thread that uses derivations.
        saving: the thread that writes snapshots.
        clock: durations.
    """

    def __init__(
        self,
        store: SnapshotStore,
        consumer: Callable[[], RollupConsumer],
        folding: Executor,
        saving: Executor,
        clock: Clock,
    ) -> None:
        self._store = store
        self._consumer = consumer
        self._folding = folding
        self._saving = saving
        self._clock = clock
        self._log = structlog.get_logger("chimera.rollup")

    async def save(self, partition: AssignedPartition) -> None:
        """Write a snapshot, unless one is being written."""
        if not partition.saving.locked():
            await self.save_now(partition)

    async def save_now(self, partition: AssignedPartition) -> None:
        """Wait for the snapshot that is being written, and write another one if that lacks something.

        Raises:
            ChimeraError: the broker refuses it.
        """
        async with partition.saving:
            async with partition.lock:
                if partition.held(self._consumer()) is None or not partition.changed:
                    return
                done = partition.derivation
                rows, hours, late = done.rows, done.stored_hours, done.late
                began_at = partition.saved_at = self._clock.monotonic()
                snapshot = await in_thread(self._folding, done.snapshot, partition.topic_id, partition.tp.partition)
            try:
                with metrics.ROLLUP_SNAPSHOT_SECONDS.time():
                    await in_thread(self._saving, self._store.write, snapshot)
            except UnavailableError as error:
                self._log.warning("snapshot not written, the next one will hold more", error=str(error))
                return
            done.rows -= rows
            done.stored_hours -= hours
            done.late -= late
            partition.saving_seconds = self._clock.monotonic() - began_at
            partition.snapshots = (partition.snapshots[1], snapshot.offset)
            older = partition.snapshots[0]
            if older is not None and partition.held(self._consumer()):
                self._consumer().forget_closings(partition.tp, older)
