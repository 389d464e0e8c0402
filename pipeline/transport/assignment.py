"""What a worker holds of its partitions, and what is recorded of them with the broker.

What is recorded is taken of the member that was assigned the partitions, and of nobody else: a worker that isn't it any
more finds that out here, and lets go.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from pipeline.errors import ChimeraError, HaltError, UnavailableError
from pipeline.retry import Held, lease_clock
from pipeline.transport.batches import MicroBatch, PartitionBatches, State
from pipeline.transport.broker import NOBODY, BrokerThread
from pipeline.transport.commit_metadata import Closing, Ranges
from pipeline.transport.options import TransportOptions

RETRY_SECONDS = 1.0

T = TypeVar("T")


class Holder(driver.Consumer):
    """A consumer that knows what it holds, and records it."""

    _thread: BrokerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._partitions: dict[TP, PartitionBatches] = {}
        self._messages: dict[MicroBatch, ConsumerMessage] = {}  # in which those in flight were delivered
        self._progress = asyncio.Event()
        self._recording = asyncio.Lock()  # what is committed later must be what was the case later
        self._membership = NOBODY  # of the member that was assigned the partitions
        super().__init__(*args, **kwargs)
        self.options: TransportOptions = getattr(self.app, "transport_options", TransportOptions())

    def _new_consumer_thread(self) -> BrokerThread:
        return BrokerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def failed_connections(self) -> int:
        """How often a broker couldn't be reached, or hasn't let us in."""
        return self._thread.failed_connections

    def held(self, tp: TP) -> PartitionBatches | None:
        """What we have of a partition; None when it isn't ours."""
        return self._partitions.get(tp)

    def _on_ack(self, batch: MicroBatch) -> None:
        self._forget(batch)
        self._progress.set()

    def _forget(self, batch: MicroBatch) -> None:
        if message := self._messages.pop(batch, None):
            self._unacked_messages.discard(message)

    def _let_go(self, partitions: set[TP]) -> None:
        for tp in partitions & self._partitions.keys():
            self._partitions.pop(tp).close()
        for batch in [batch for batch in self._messages if not batch.live]:
            self._forget(batch)

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what may be committed, of micro-batches and of Faust's own topics."""
        try:
            done = await self._record()
        except KafkaError as error:
            self.log.warning("Offsets not committed, will try again: %r", error)
            done = False
        except HaltError as error:
            self._halt(error)
            done = False
        return bool(await super().force_commit(topics, start_new_transaction)) or done

    async def _record(self, also: Iterable[TP] = ()) -> bool:
        """Record what is done and what is in flight, wherever it has changed, in one commit.

        Where the broker refuses, because another member may have the partitions, they are let go of.

        Args:
            also: partitions to record even if nothing has changed.

        Raises:
            KafkaError: the broker doesn't answer.
        """
        async with self._recording:
            states = {tp: batches.state for tp, batches in self._partitions.items() if batches.changed or tp in also}
            if not states:
                return False
            return await self._commit_states(states)

    async def _commit_states(self, states: Mapping[TP, State]) -> bool:
        """Commit as the member that we are; where the broker refuses, let go. To be called with `_recording` held."""
        commits = {tp: self._commit_of(tp, state) for tp, state in states.items()}
        now = lease_clock()
        if not await self._thread.commit_ranges(self._membership, commits):
            self.log.info("Not recorded: the partitions are being reassigned")
            self._let_go(set(states))
            return False
        for tp in states.keys() & self._partitions.keys():
            self._partitions[tp].recorded(states[tp], now)
        self.app.monitor.on_tp_commit({tp: state.offset for tp, state in states.items()})
        return True

    def _commit_of(self, tp: TP, state: State) -> OffsetAndMetadata:
        ranges = Ranges(self._partitions[tp].topic_id, state.ends, state.closings)
        return OffsetAndMetadata(state.offset, str(ranges))

    async def renew(self, held: Held) -> bool:
        """Record the state of a partition again, as if it were new; False when it isn't ours any more."""
        await self._until_answered(
            lambda: self._record([TP(held.topic, held.partition)]),
            lambda: held.live,
        )
        return held.live

    async def close_by_clock(self, tp: TP, offset: int, hour: int) -> bool:
        """Decide and record that from this offset on all windows of earlier hours are closed.

        Returns:
            Whether it is recorded. If not, nothing is decided: the partition isn't ours, something of it waits or is in
            flight, the offset isn't that of the record to come, the log goes on, or there are too many to be recorded.

        Raises:
            UnavailableError: the broker doesn't answer, and whether it is recorded is unknown: nothing is decided here.
        """
        try:
            return await self._close_by_clock(tp, offset, hour)
        except KafkaError as error:
            raise UnavailableError(
                f"{tp.topic}-{tp.partition}: closing by the clock not committed: {error!r}"
            ) from error

    async def _close_by_clock(self, tp: TP, offset: int, hour: int) -> bool:
        partition, closing = self._partitions.get(tp), Closing(offset, hour)
        if partition is None or partition.with_closing(closing) is None or not await self._thread.at_the_end(tp):
            return False
        async with self._recording:
            state = partition.with_closing(closing)
            if state is None:  # by now
                return False
            # It counts when the broker has said that it has it, not before. Unanswered, it may be recorded all the
            # same. Should the partition move now, its new owner finds it and goes by it, and we have closed nothing.
            # Should we go on, no record from this offset on is delivered before another commit, which leaves it out:
            # nobody has gone by it. Kept here, it would be recorded with what we deliver without going by it.
            if not await self._commit_states({tp: state}):
                return False
            partition.closings = state.closings
            return partition.live  # else it has been let go of meanwhile: the next owner goes by it

    def forget_closings(self, tp: TP, before: int) -> None:
        """Closings at lower offsets aren't needed any more; they are left out of the next commit."""
        if tp in self._partitions:
            self._partitions[tp].forget_closings(before)

    async def _until_answered(self, ask: Callable[[], Awaitable[T]], wanted: Callable[[], bool]) -> T | None:
        """Ask the broker again and again, as long as the answer is wanted; then None."""
        while wanted():
            try:
                return await ask()
            except (KafkaError, UnavailableError) as error:
                self.log.warning("Kafka doesn't answer, will be asked again: %r", error)
            except HaltError as error:
                self._halt(error)
            await asyncio.sleep(RETRY_SECONDS)
        return None

    async def _wait_for_progress(self, seconds: float) -> None:
        """Wait for an acknowledgement, but no longer than this."""
        self._progress.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._progress.wait(), seconds)

    def _halt(self, error: ChimeraError) -> None:
        if self.options.halt is None:
            raise error
        self.options.halt(error)
