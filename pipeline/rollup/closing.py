"""Closings by the clock: hours of idle partitions.

The clock is the broker's. A worker's time of day may be wrong by hours, and a closing can't be taken back.
"""

from collections.abc import Callable
from concurrent.futures import Executor

import structlog

from pipeline.config import RollupSettings
from pipeline.errors import UnavailableError
from pipeline.rollup.assigned import AssignedPartition, RollupConsumer, in_thread
from pipeline.rollup.clock import BrokerClock, Clock
from pipeline.rollup.idleness import hour_by_clock


class HourCloser:
    """Closes the hours of idle partitions.

    Args:
        settings: grace, and the time after which a partition is idle.
        consumer: returns the transport's consumer.
        folding: the thread that uses derivations.
        clock: durations.
        broker_clock: the broker's time.
    """

    def __init__(
        self,
        settings: RollupSettings,
        consumer: Callable[[], RollupConsumer],
        folding: Executor,
        *,
        clock: Clock,
        broker_clock: BrokerClock,
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self._folding = folding
        self._clock = clock
        self._broker_clock = broker_clock
        self._log = structlog.get_logger("chimera.rollup")

    def may_close(self, partition: AssignedPartition) -> bool:
        """Tell whether the partition is idle, and the clock closes windows of it by all that is known here."""
        if partition.lock.locked() or partition.closing.locked() or not self._broker_clock.may_ask:
            return False
        held = partition.held(self._consumer())
        if held is None or held.idle_at != partition.derivation.offset:
            return False  # micro-batches are under way, and a closing would be refused
        if self._broker_clock.now_ms is not None:
            return self._due(partition) is not None
        quiet = self._quiet_seconds(partition) >= self._settings.idle_seconds
        return quiet and partition.derivation.windows.oldest_hour is not None

    async def close_by_clock(self, partition: AssignedPartition) -> None:
        """Close the windows that are over by the broker's time of now, after the broker has accepted the closing."""
        if partition.closing.locked():
            return
        async with partition.closing:
            try:
                if await self._broker_clock.refresh(partition.tp.partition):
                    await self._close(partition)
            except UnavailableError as error:
                self._log.warning(
                    "the broker hasn't confirmed a closing by the clock, it will be tried again", error=str(error)
                )

    async def _close(self, partition: AssignedPartition) -> None:
        async with partition.lock:
            hour = self._due(partition)
            if hour is None or partition.held(self._consumer()) is None:
                return
            if await self._consumer().close_by_clock(partition.tp, partition.derivation.offset, hour):
                await in_thread(self._folding, partition.derivation.close, hour)
                partition.saved_at = float("-inf")  # the next snapshot makes the commit of the closing superfluous
                where = {"topic": partition.tp.topic, "partition": partition.tp.partition}
                self._log.info("windows of an idle partition closed by the clock", **where, before_hour=hour)

    def _due(self, partition: AssignedPartition) -> int | None:
        """Return the hour before which the clock closes all windows; None if it closes none."""
        now_ms = self._broker_clock.now_ms
        if now_ms is None:
            return None
        return hour_by_clock(partition.derivation.windows, now_ms, self._quiet_seconds(partition), self._settings)

    def _quiet_seconds(self, partition: AssignedPartition) -> float:
        return self._clock.monotonic() - partition.quiet_since
