"""Reader of ranges of a log beside the worker: many partitions at once, as fast as the worker fetches.

It joins no group and commits nothing. aiokafka's consumer runs in a thread of its own and fetches ahead, while the
caller's threads decode and insert. Like the worker, it reads only records of committed transactions.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Any, Self

import aiokafka.client
import uvloop
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.structs import TopicPartition as Place

from pipeline.config import KafkaSettings
from pipeline.errors import HaltError, UnavailableError, damaged_log
from pipeline.transport.adapter.answers import check_fetched
from pipeline.transport.adapter.connection import create_conn
from pipeline.transport.adapter.login import client_options
from pipeline.transport.adapter.records import take
from pipeline.transport.adapter.requests import in_time
from pipeline.transport.broker import Commit, Damage, Fetched
from pipeline.transport.packed import read_whole
from pipeline.transport.stretches import LogStretch, cut

_ANSWER_SECONDS = 30.0
_FETCH_WAIT_MS = 100
_POLL_SECONDS = 0.1


class LogReader:
    """Reads ranges of one topic.

    Methods raise UnavailableError if Kafka doesn't answer, HaltError if it refuses.

    Args:
        settings: the broker.
        topic: name of the topic.
        silence_seconds: longest wait for the next record of any range.
        refused_seconds: time in which temporary refusals of the commits are accepted.
    """

    def __init__(
        self, settings: KafkaSettings, topic: str, *, silence_seconds: float = 60.0, refused_seconds: float = 20.0
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._silence_seconds = silence_seconds
        self._refused_seconds = refused_seconds
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="log reader", daemon=True)
        self._consumer: Any = None
        self._left: dict[int, deque[range]] = {}  # by partition; the first range begins with the next offset to read

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        if self._consumer is not None:
            with suppress(UnavailableError):
                self._ask(self._consumer.stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def commits(self, group: str) -> dict[int, Commit]:
        """Return the commits of a group, by partition of the topic."""
        commits: dict[int, Commit] = self._ask(self._commits, group)
        return commits

    def read(
        self, ranges: Mapping[int, Sequence[range]], wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[LogStretch]:
        """Read ranges of offsets; each partition's in their order, several partitions at once.

        Every offset of the ranges is in exactly one stretch, unless the log is damaged.

        Args:
            ranges: ascending ranges that don't overlap, by partition.
            wanted: False to end early.
        """
        self._left = {number: deque(filter(len, some)) for number, some in ranges.items()}
        self._left = {number: some for number, some in self._left.items() if some}
        if not self._left:
            return
        self._ask(self._begin)
        heard_at = monotonic()
        while self._left and wanted():
            stretches = self._ask(self._next)
            yield from stretches
            if stretches:
                heard_at = monotonic()
            elif monotonic() - heard_at > self._silence_seconds:
                places = ", ".join(f"{number} at offset {some[0].start}" for number, some in sorted(self._left.items()))
                raise UnavailableError(
                    f"Kafka at {self._settings.bootstrap_servers} has sent no record of topic {self._topic} for "
                    f"{self._silence_seconds:.0f} s; waiting for partition {places}"
                )

    async def _commits(self, group: str) -> dict[int, Commit]:
        admin = AIOKafkaAdminClient(**client_options(self._settings))
        try:
            await admin.start()
            answer = await self._fetch_commits(admin, group)
        finally:
            await admin.close()
        return {
            number: Commit(offset, metadata)
            for topic, partitions in answer.topics
            for number, offset, metadata, _ in partitions
            if topic == self._topic and offset >= 0
        }

    async def _fetch_commits(self, admin: AIOKafkaAdminClient, group: str) -> Any:
        """Ask again while the coordinator moves or loads the group; aiokafka would return no commits then."""
        asked = OffsetFetchRequest(group, None)
        deadline = monotonic() + self._refused_seconds
        while True:
            try:
                answer = await admin._send_request(asked, await admin.find_coordinator(group))  # noqa: SLF001 (it checks no answer)
                check_fetched(group, (), answer)
            except KafkaError as error:
                if not error.retriable or monotonic() > deadline:
                    raise
            else:
                return answer
            await asyncio.sleep(_POLL_SECONDS)

    async def _begin(self) -> None:
        aiokafka.client.create_conn = create_conn  # the client takes no other function
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(
                **client_options(self._settings),
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                max_partition_fetch_bytes=self._settings.max_fetch_bytes,
                fetch_max_wait_ms=_FETCH_WAIT_MS,
            )
            await self._consumer.start()
        self._consumer.assign([Place(self._topic, number) for number in self._left])
        for number, some in self._left.items():
            self._consumer.seek(Place(self._topic, number), some[0].start)

    async def _next(self) -> list[LogStretch]:
        """Return what has been fetched, or what arrives first within a moment."""
        fetcher = self._consumer._fetcher  # noqa: SLF001 (aiokafka offers no other way to fetched batches)
        try:
            fetched = await self._take(fetcher)
            if not fetched:
                arrival = fetcher._create_fetch_waiter()  # noqa: SLF001 (as above)
                await asyncio.wait([arrival], timeout=1.0)
                arrival.cancel()
                fetched = await self._take(fetcher)
        except OffsetOutOfRangeError as error:
            ((place, _),) = error.args[0].items()
            return await self._past_deleted(place.partition)
        return [each for place, stretch in fetched.items() for each in self._stretches(place.partition, stretch)]

    async def _take(self, fetcher: Any) -> Mapping[Any, Fetched]:
        most = self._settings.max_unpacked_bytes
        return await take(fetcher, (self._topic,), most, lambda: fetcher.fetched_records((), 0))

    async def _past_deleted(self, number: int) -> list[LogStretch]:
        """Go on behind the records that retention has deleted."""
        place, expected = Place(self._topic, number), self._left[number][0].start
        beginning = (await self._consumer.beginning_offsets([place]))[place]
        if beginning <= expected:
            raise HaltError(
                f"{self._topic}-{number}: Kafka's log ends before offset {expected}, which it had before; expected a "
                "log that still has all offsets of the plan: was the topic created anew?"
            )
        return list(self._cut(number, (), beginning, deleted=True))

    def _stretches(self, number: int, fetched: Fetched) -> Iterator[LogStretch]:
        records, unread = read_whole(fetched.records)
        damage = Damage(unread.offsets, str(unread)) if unread else fetched.damage
        next_offset = max(fetched.first, damage.offsets.start) if damage else fetched.next_offset
        yield from self._cut(number, records, next_offset)
        if damage and self._left.pop(number, None):
            self._consumer.pause(Place(self._topic, number))
            error = damaged_log(self._topic, number, damage.fault, "leave these offsets out with --from and --to")
            yield LogStretch(number, next_offset, next_offset, damage=error)

    def _cut(
        self, number: int, records: Sequence[Any], next_offset: int, *, deleted: bool = False
    ) -> Iterator[LogStretch]:
        """Yield the parts of a stretch that are in the partition's ranges, and move on to the next offset to read."""
        if number not in self._left:
            return
        ranges = self._left[number]
        yield from cut(ranges, number, records, next_offset, deleted=deleted)
        place = Place(self._topic, number)
        if not ranges:
            del self._left[number]
            self._consumer.pause(place)
        elif deleted or ranges[0].start != next_offset:
            self._consumer.seek(place, ranges[0].start)

    def _ask(self, request: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Run a coroutine in the reader's thread, and wait for its result."""
        asked = asyncio.run_coroutine_threadsafe(in_time(_ANSWER_SECONDS, request, *args), self._loop)
        try:
            return asked.result(2 * _ANSWER_SECONDS)
        except (UnavailableError, FutureTimeoutError) as error:
            where = f"Kafka at {self._settings.bootstrap_servers}, topic {self._topic}"
            raise UnavailableError(f"{where}: {error or 'no answer'}") from error
