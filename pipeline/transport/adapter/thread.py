"""Faust's thread for aiokafka, with faster fetches; records that arrive during a rebalance aren't lost."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import aiokafka.client
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from pipeline.errors import HaltError, UnavailableError
from pipeline.transport.adapter.connection import create_conn
from pipeline.transport.adapter.coordinator import CheckedCoordinator
from pipeline.transport.adapter.fetch_pace import FetchPace
from pipeline.transport.adapter.joining import Joining
from pipeline.transport.adapter.records import take
from pipeline.transport.adapter.requests import allowed, in_time
from pipeline.transport.broker import BrokerTrouble, Fetched, Membership, TopicPartition
from pipeline.transport.options import TransportOptions


class BrokerThread(driver.AIOKafkaConsumerThread):
    """Thread that runs aiokafka's consumer."""

    consumer: Any
    failed_connections = 0
    """Number of attempts to connect that failed or were refused; aiokafka goes on trying in either case."""
    _pace: FetchPace
    joining: Joining | None = None
    """Watch over the membership, once the thread has started."""

    @property
    def options(self) -> TransportOptions:
        """Options that the app gives; without any, no topic has a batch policy."""
        options: TransportOptions = getattr(self.app, "transport_options", None) or TransportOptions()
        return options

    @property
    def client(self) -> Any:
        """Aiokafka's consumer.

        Raises:
            faust.exceptions.ConsumerNotStarted: the thread hasn't started yet.
        """
        return self._ensure_consumer()

    @property
    def coordinator(self) -> CheckedCoordinator:
        """Aiokafka's group coordinator; the consumer's public methods give no metadata and no membership.

        Raises:
            UnavailableError: the consumer is still starting.
        """
        coordinator: CheckedCoordinator | None = self.client._coordinator  # noqa: SLF001 (as the docstring says)
        if coordinator is None:
            raise UnavailableError("the consumer is still starting")
        return coordinator

    @property
    def membership(self) -> Membership:
        """Current membership of the group."""
        coordinator = self.coordinator
        return Membership(coordinator.generation, coordinator.member_id)

    def topic_partitions(self, topic: str) -> int | None:
        """Return the number of partitions of a topic; Faust's own method knows them in the group's leader alone."""
        return len(self._consumer.partitions_for_topic(topic) or ()) if self._consumer else None

    @property
    def trouble(self) -> BrokerTrouble | None:
        """Reason why this worker can't read all its partitions; None if nothing is known against it."""
        if self.joining is None:
            return None
        return self.joining.trouble or self._without_leader()

    def end_offsets(self) -> dict[TopicPartition, int]:
        """Return the ends of the assigned partitions' logs as of the last fetch; none before the first one."""
        ends = dict[TopicPartition, int]()
        with suppress(AssertionError, AttributeError):  # aiokafka's thread may take the assignment away meanwhile
            for tp in self.client.assignment():
                if (end := self.client.highwater(tp)) is not None:
                    ends[TopicPartition(*tp)] = end
        return ends

    def _without_leader(self) -> BrokerTrouble | None:
        cluster = self.client._client.cluster  # noqa: SLF001 (the consumer has no public method for this)
        leaders = {tp: cluster.leader_for_partition(tp) for tp in sorted(self.assignment())}
        names = ", ".join(f"{tp.topic}-{tp.partition}" for tp, leader in leaders.items() if leader in {None, -1})
        return BrokerTrouble(f"no broker leads {names}") if names else None

    async def ask(self, request: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Make a request in this thread, and await its answer in the caller's.

        Raises:
            HaltError: an ACL is missing.
            UnavailableError: no answer in time, or an error of the broker or of the connection.
        """
        return await self.call_thread(in_time, self.options.answer_seconds, request, *args)

    async def on_start(self) -> None:
        """Start aiokafka's consumer, and watch over its membership."""
        await super().on_start()
        options = self.options
        self.joining = Joining(
            self.coordinator,
            self.log,
            self._stop,
            pause_seconds=options.join_pause_seconds,
            unclear_seconds=options.unclear_seconds,
            silent_seconds=options.silent_seconds,
        )

    def _stop(self, error: HaltError) -> None:
        self.parent_loop.call_soon_threadsafe(self.options.stop, error)

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        self._pace = FetchPace(
            (policy.linger_seconds for policy in self.options.policies.values()),
            self.app.conf.consumer_max_fetch_size,
        )
        self._pace.set(consumer, got_records=False, partitions=0)  # which gives the values to its fetcher
        consumer._isolation_level = "read_committed"  # noqa: SLF001 (Faust sets it only for workers with transactions)
        client = consumer._client  # noqa: SLF001 (aiokafka only logs that it has no connection)
        aiokafka.client.create_conn = create_conn  # the client takes no other function
        client._get_conn = partial(self._connect, client._get_conn)  # noqa: SLF001 (as above)
        return consumer

    async def _connect(self, connect: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        connection = await connect(*args, **kwargs)
        self.failed_connections += connection is None
        return connection

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 (Faust's signature)
        max_records: int | None = None,
    ) -> Any:
        """Return what is fetched, or what arrives first within the timeout: a `Fetched` by partition.

        Records that arrive during a rebalance are put back: the consumer would drop them.

        Raises:
            HaltError: the worker may not read a topic, or not as this group; or aiokafka has stopped fetching.
        """
        with allowed():
            return await self._fetch(consumer, active_partitions, timeout, max_records)

    async def _fetch(
        self, consumer: Any, active_partitions: set[TP], seconds: float | None, limit: int | None
    ) -> dict[TP, Fetched]:
        fetcher = consumer._fetcher  # noqa: SLF001 (aiokafka offers no other way in, nor does Faust take one)
        _check_running(fetcher)
        fetched = await self._take(consumer, active_partitions, limit)
        if not fetched and seconds:
            arrival = fetcher._create_fetch_waiter()  # noqa: SLF001 (as above)
            await asyncio.wait([arrival], timeout=seconds)
            if not arrival.cancel():
                arrival.result()  # raises if the group coordinator has given up
            fetched = await self._take(consumer, active_partitions, limit)
        self._pace.set(fetcher, got_records=bool(fetched), partitions=len(active_partitions))
        if self.consumer.flow_active:
            return fetched
        for tp, stretch in fetched.items():
            consumer.seek(tp, stretch.first)
        return {}

    async def _take(self, consumer: Any, active_partitions: set[TP], limit: int | None) -> dict[TP, Fetched]:
        fetcher = consumer._fetcher  # noqa: SLF001 (as above)
        fetched_records = super()._fetch_records
        options = self.options
        return await take(
            fetcher,
            options.policies,
            options.max_unpacked_bytes,
            lambda: fetched_records(consumer, active_partitions, 0, limit),
        )

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the group's committed offsets, in all partitions.

        Raises:
            HaltError, UnavailableError: see `ask`.
        """
        committed: Mapping[TP, int] = await self.ask(self.client.seek_to_committed)
        return committed

    async def on_thread_stop(self) -> None:
        """Leave the group; go without a word if the broker doesn't answer within `leave_seconds`."""
        # In a task of its own: aiokafka lets the cancellation of its fetches through, and the thread would never end.
        leaving = asyncio.create_task(super().on_thread_stop())
        _, late = await asyncio.wait([leaving], timeout=self.options.leave_seconds)
        if late or leaving.cancelled() or leaving.exception():
            self.log.warning(
                "Kafka doesn't answer, so the group notices only after the session timeout that this member has left"
            )


def _check_running(fetcher: Any) -> None:
    """Raise HaltError if aiokafka's task for fetches has failed: no record would arrive, and no error be reported."""
    if not fetcher.error_future.done():
        return
    try:
        fetcher.error_future.result()
    except KafkaError as error:
        raise HaltError(
            f"aiokafka has stopped fetching: {error.__cause__ or error!r}; start the worker again"
        ) from error
