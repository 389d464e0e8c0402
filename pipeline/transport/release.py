"""Let partitions go in a rebalance or a stop: wait for agents, commit, have the deriver release, close."""

import asyncio
from collections.abc import Callable

from pipeline.errors import ChimeraError
from pipeline.transport.broker import TopicPartition
from pipeline.transport.context import Context
from pipeline.transport.fetching import RECHECK_SECONDS
from pipeline.transport.micro_batch import MicroBatch

_RELEASE_SECONDS = 1.5  # the deriver has this long even if the drain has used up its time


class Release:
    """Lets partitions go."""

    def __init__(self, context: Context) -> None:
        self._broker = context.broker
        self._assignment = context.assignment
        self._options = context.options
        self._log = context.log
        self._clock = context.clock
        self._drained_by: float | None = None  # end of the drain that is under way

    def begin(self) -> None:
        """Start the time to drain."""
        self._drained_by = self._clock() + self._options.drain_seconds

    def end(self) -> None:
        """Note that the rebalance is over."""
        self._drained_by = None

    async def drain(self, taken: Callable[[], list[MicroBatch]]) -> list[MicroBatch]:
        """Wait until agents have acknowledged their micro-batches, or until the time to drain is over.

        Args:
            taken: micro-batches that agents have and haven't acknowledged.

        Returns:
            Micro-batches that aren't acknowledged by then; they are delivered again, by this worker or another.
        """
        if self._drained_by is None:
            self.begin()
        while taken() and self._clock() < (self._drained_by or 0.0):
            await self._assignment.wait_for_progress(RECHECK_SECONDS)
        if late := taken():
            self._log.warning(
                "Not acknowledged within %.0f s, will be delivered again: %r", self._options.drain_seconds, late
            )
        return late

    async def let_go(self, partitions: set[TopicPartition]) -> None:
        """Tell the deriver to release partitions while this worker owns them, then let them go."""
        await self._have_released(partitions)
        self._assignment.let_go(partitions)

    async def let_go_of_all(self) -> None:
        """Let all partitions go; see `let_go`."""
        await self._have_released(set(self._assignment.partitions))
        self._assignment.let_go(set(self._assignment.partitions))

    async def _have_released(self, partitions: set[TopicPartition]) -> None:
        """Tell the deriver to release partitions, in the rest of the time to drain.

        A failed release is logged and no more: it only makes the next replay longer.
        """
        derived = self._options.derived(partitions & self._assignment.partitions.keys())
        if self._options.deriver is None or not derived or self._broker.membership != self._assignment.membership:
            return
        try:
            async with asyncio.timeout(max(_RELEASE_SECONDS, (self._drained_by or 0.0) - self._clock())):
                await self._options.deriver.release(derived)
        except TimeoutError:
            self._log.warning("The deriver didn't release partitions in time: %r", derived)
        except ChimeraError as error:
            self._log.warning("The deriver didn't release %r: %s", derived, error)
        except Exception:  # noqa: BLE001 (the partitions have to go, whatever fails)
            self._log.exception("The deriver didn't release %r", derived)
