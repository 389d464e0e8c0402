"""A limit on the micro-batches that are processed at once."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


def places_for(threads: int) -> int:
    """Return the number of places for so many threads: one more, so that a thread that is done has work at once."""
    return threads + 1


class TakenPlace:
    """A place that a micro-batch has taken.

    Args:
        free: the free places.
    """

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free = free
        self._held = True

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[None]:
        """Leave the place to others for the time of the block, then wait for a free one."""
        self.give_back()
        try:
            yield
        finally:
            await self._free.acquire()  # if it is cancelled, there is no place to give back
            self._held = True

    def give_back(self) -> None:
        """Free the place, unless it is lent."""
        if self._held:
            self._held = False
            self._free.release()


class Places:
    """Places for micro-batches that are processed at once; families take turns.

    Args:
        number: number of places.
    """

    def __init__(self, number: int) -> None:
        self._free = asyncio.Semaphore(number)
        self._queues: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def take(self, queue: str) -> AsyncIterator[TakenPlace]:
        """Wait for a free place, and take it for the time of the block.

        Args:
            queue: name of the queue, a family's for example. Micro-batches of a queue are served in their order. Only
                the first of each queue waits for a place, so a family with many micro-batches doesn't hold up another.
        """
        async with self._queues[queue]:
            await self._free.acquire()
        place = TakenPlace(self._free)
        try:
            yield place
        finally:
            place.give_back()
