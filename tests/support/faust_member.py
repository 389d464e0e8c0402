"""A Faust app on the batch transport, in this process: one member of a consumer group, and what its agents get."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

import faust

from pipeline.catalog import BatchPolicy
from pipeline.config import KafkaSettings
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.options import TransportOptions

PATIENCE_SECONDS = 60.0

Handle = Callable[[MicroBatch], Awaitable[None]]


class Member:
    """Joins on entering the context, stops gracefully on leaving it.

    Args:
        kafka: the broker, and the group to be a member of.
        batching: of the topics; each has an agent.
        handle: what an agent does with a micro-batch; without it, they queue up for `take`.
        derive: what the deriver's agent does with one, where there is a deriver.
        options: of `faust.App`, instead of those here.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        batching: TransportOptions,
        handle: Handle | None = None,
        derive: Handle | None = None,
        **options: Any,
    ) -> None:
        self._queue: asyncio.Queue[MicroBatch] = asyncio.Queue()
        self._handle = handle or self._queue.put
        own: dict[str, Any] = {
            "broker": f"batch://{kafka.bootstrap_servers}",
            "broker_commit_interval": 0.1,
            "broker_heartbeat_interval": 0.2,
            "consumer_auto_offset_reset": "earliest",
            "stream_wait_empty": True,
            "topic_allow_declare": False,
            "topic_disable_leader": True,
            "store": "memory://",
            "datadir": tempfile.gettempdir(),
            "web_enabled": False,
        }
        app: Any = faust.App(kafka.group_id, **own | options)
        self.app = app
        self.app.transport_options = batching
        for topic in batching.policies:
            self._add_agent(topic, "ingest", self._handle)
            if batching.deriver and derive and topic in batching.deriver.topics:
                self._add_agent(topic, "derive", derive)

    async def __aenter__(self) -> Self:
        await self.app.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.app.stop()

    async def take(self, batches: int = 1) -> list[MicroBatch]:
        """The next so many micro-batches; fails when they don't come."""
        return [await asyncio.wait_for(self._queue.get(), PATIENCE_SECONDS) for _ in range(batches)]

    async def take_records(self, records: int) -> list[MicroBatch]:
        """The next micro-batches, acknowledged one by one, until they hold so many records."""
        batches: list[MicroBatch] = []
        while sum(map(len, batches)) < records:
            batches += await self.take()
            batches[-1].ack()
        return batches

    async def idle_for(self, seconds: float) -> bool:
        """Whether nothing waits to be taken, so long after this."""
        await asyncio.sleep(seconds)
        return self._queue.empty()

    def _add_agent(self, topic: str, name: str, handle: Handle) -> None:
        async def consume(stream: Any) -> None:
            async for batch in stream:  # which Faust acknowledges after each iteration
                await handle(batch)

        self.app.agent(self.app.topic(topic, key_serializer="raw", value_serializer="raw"), name=name)(consume)

    @property
    def partitions(self) -> int:
        """How many it is assigned, once records flow."""
        return 0 if self.app.rebalancing else len(self.app.consumer.assignment())


async def until(look: Callable[[], object], what: str) -> None:
    """Wait until it is true; fails when it doesn't come true."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not look():  # noqa: ASYNC110 (the broker is what is looked at)
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {PATIENCE_SECONDS:.0f} s") from None


def small_batches(*topics: str, rows: int = 10, linger_seconds: float = 0.1, **options: Any) -> TransportOptions:
    """Small micro-batches of these topics, and short patience."""
    policy = BatchPolicy(max_rows=rows, max_bytes=1024, linger_seconds=linger_seconds)
    return TransportOptions(dict.fromkeys(topics, policy), **{"drain_seconds": 0.2} | options)


def numbers(count: int, start: int = 0) -> list[bytes]:
    """So many different values."""
    return [b"%d" % number for number in range(start, start + count)]


def values_of(batches: Iterable[MicroBatch]) -> list[bytes | None]:
    """Of all their records."""
    return [value for batch in batches for value in batch.values]


def ranges_of(batches: Iterable[MicroBatch]) -> list[tuple[int, int]]:
    """First and last offset of each."""
    return [(batch.first, batch.last) for batch in batches]
