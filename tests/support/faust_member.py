"""A Faust app on the batch transport in this process: one member of a consumer group."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

import faust

from pipeline.catalog import BatchPolicy
from pipeline.config import KafkaSettings
from pipeline.errors import ChimeraError
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.options import TransportOptions
from support.processes import PATIENCE_SECONDS

Handle = Callable[[MicroBatch], Awaitable[None]]


class Member:
    """Group member that joins on entering the context, and stops gracefully on leaving it.

    Args:
        kafka: broker and group.
        transport: options of the transport; each topic has an agent.
        handle: called by an agent with each micro-batch; defaults to queueing it for `take`.
        derive: called by the deriver's agent with each micro-batch.
        options: settings of `faust.App` that replace those here.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        transport: TransportOptions,
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
        self.app.transport_options = transport
        for topic in transport.policies:
            self._add_agent(topic, "ingest", self._handle)
            if transport.deriver and derive and topic in transport.deriver.topics:
                self._add_agent(topic, "derive", derive)

    async def __aenter__(self) -> Self:
        await self.app.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.app.stop()

    async def take(self, batches: int = 1) -> list[MicroBatch]:
        """Return the next micro-batches; fail if they don't arrive."""
        return [await asyncio.wait_for(self._queue.get(), PATIENCE_SECONDS) for _ in range(batches)]

    async def take_records(self, records: int) -> list[MicroBatch]:
        """Return the next micro-batches until they hold so many records; acknowledge each."""
        batches: list[MicroBatch] = []
        while sum(map(len, batches)) < records:
            batches += await self.take()
            batches[-1].ack()
        return batches

    async def idle_for(self, seconds: float) -> bool:
        """Tell whether no micro-batch arrives for so long."""
        await asyncio.sleep(seconds)
        return self._queue.empty()

    def _add_agent(self, topic: str, name: str, handle: Handle) -> None:
        async def consume(stream: Any) -> None:
            async for batch in stream:  # which Faust acknowledges after each iteration
                await handle(batch)

        self.app.agent(self.app.topic(topic, key_serializer="raw", value_serializer="raw"), name=name)(consume)

    @property
    def partitions(self) -> int:
        """Number of assigned partitions; 0 during a rebalance."""
        return 0 if self.app.rebalancing else len(self.app.consumer.assignment())


async def until(look: Callable[[], object], what: str) -> None:
    """Wait until `look` returns something true; fail if it takes too long."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not look():  # noqa: ASYNC110 (the broker is what is looked at)
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {PATIENCE_SECONDS:.0f} s") from None


def small_batches(*topics: str, rows: int = 10, linger_seconds: float = 0.1, **options: Any) -> TransportOptions:
    """Return options with small micro-batches of these topics, and short waits."""
    policy = BatchPolicy(max_rows=rows, max_bytes=1024, linger_seconds=linger_seconds)
    own: dict[str, Any] = {"drain_seconds": 0.2, "topic_ids": lambda names: dict.fromkeys(names, "-")}
    return TransportOptions(dict.fromkeys(topics, policy), **own | options)


def numbers(count: int, start: int = 0) -> list[bytes]:
    """Return so many different values."""
    return [b"%d" % number for number in range(start, start + count)]


def values_of(batches: Iterable[MicroBatch]) -> list[bytes | None]:
    """Return the values of all records."""
    return [record.value for batch in batches for record in batch.records]


def ranges_of(batches: Iterable[MicroBatch]) -> list[tuple[int, int]]:
    """Return first and last offset of each."""
    return [(batch.first, batch.last) for batch in batches]


def halted(kafka: KafkaSettings, topic: str) -> ChimeraError:
    """Run a member until it halts; check that it delivers nothing, and return its failure."""
    failures: list[ChimeraError] = []

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic, halt=failures.append)) as member:
            await until(lambda: failures, "halted")
            assert await member.idle_for(0.5)

    asyncio.run(scenario())
    [failure] = failures
    return failure
