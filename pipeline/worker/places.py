"""A limit on the micro-batches that are processed at once."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Places:
    """Places for micro-batches that are processed at once; families take turns.

    Args:
        number: how many there are.
    """

    def __init__(self, number: int) -> None:
        self._free = asyncio.Semaphore(number)
        self._queues: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def take(self, queue: str) -> AsyncIterator[None]:
        """Wait for a free place, and take it for the time of the block.

        Args:
            queue: its micro-batches are served in their order. Only the first of each queue waits for a place, so a
                family with many micro-batches doesn't hold up another.
        """
        async with self._queues[queue]:
            await self._free.acquire()
        try:
            yield
        finally:
            self._free.release()

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[None]:
        """Leave the place that is taken to others for the time of the block, then wait for a free one."""
        self._free.release()
        try:
            yield
        finally:
            await self._free.acquire()
