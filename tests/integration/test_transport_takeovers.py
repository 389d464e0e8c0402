"""Commits of the batch transport on a real broker, and takeovers by the next member."""

import asyncio
import contextlib
import time
from collections.abc import Iterable

import pytest
from support.faust_member import Member, halted, numbers, ranges_of, small_batches, until, values_of
from support.kafka_topic import Topic
from support.processes import PATIENCE_SECONDS

from pipeline.config import KafkaSettings
from pipeline.errors import HaltError
from pipeline.kafka.topics import TopicAdmin
from pipeline.transport.broker import NOBODY, Commit, TopicPartition
from pipeline.transport.commit_metadata import Ranges, parse
from pipeline.transport.micro_batch import MicroBatch

pytestmark = pytest.mark.integration


@pytest.fixture
def topic_id(kafka: KafkaSettings, topic: Topic) -> str:
    return TopicAdmin(kafka).ids([topic.name])[topic.name]


def _committed_ends(topic: Topic) -> tuple[int, ...]:
    """Return the committed ends of the ranges in flight of partition 0."""
    offset, metadata = topic.read_commit()
    found = parse(metadata, "here", offset)
    return found.ends if found else ()


def _tokens(batches: Iterable[MicroBatch]) -> list[str]:
    return [batch.token for batch in batches]


def test_ranges_are_committed_before_they_are_delivered(kafka: KafkaSettings, topic: Topic, topic_id: str) -> None:
    """An agent that gets a micro-batch finds its range in the commit."""
    topic.produce(numbers(30))
    seen: list[tuple[int, tuple[int, ...]]] = []

    async def look(batch: MicroBatch) -> None:
        ends = await asyncio.to_thread(_committed_ends, topic)
        seen.append((batch.last, ends))
        batch.ack()

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name, topic_ids=None), look):
            await until(lambda: topic.committed == {0: 30}, "committed")

    asyncio.run(scenario())
    assert [last for last, _ in seen] == [9, 19, 29]
    assert all(last in ends for last, ends in seen)
    assert topic.read_commit() == (30, str(Ranges(topic_id)))


def test_the_next_member_gets_the_same_ranges_first(kafka: KafkaSettings, topic: Topic) -> None:
    """With another policy and limit, the same ranges come with the same tokens and values, then the rest.

    The first has the topic's id from librdkafka, the next one from aiokafka.
    """
    topic.produce(numbers(60))
    ids = TopicAdmin(kafka).ids

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name, batches_in_flight=4, topic_ids=ids)) as member:
            lost = await member.take(4)
            lost[0].ack()
            lost[2].ack()
            await until(lambda: topic.committed == {0: 10}, "what is done")
            lost += await member.take()
        assert topic.committed == {0: 10}
        assert await asyncio.to_thread(_committed_ends, topic) == (19, 29, 39, 49)
        async with Member(kafka, small_batches(topic.name, rows=4, batches_in_flight=1, topic_ids=None)) as member:
            found = await member.take_records(50)
            assert _tokens(found[:4]) == _tokens(lost[1:])
            assert values_of(found) == numbers(50, start=10)
            assert ranges_of(found[4:]) == [(50, 53), (54, 57), (58, 59)]

    asyncio.run(scenario())


def test_a_member_that_slept_too_long_commits_and_delivers_nothing_more(kafka: KafkaSettings, topic: Topic) -> None:
    """As after SIGSTOP, its commits are refused, its micro-batches aren't live, and the new owner isn't disturbed."""
    topic.produce(numbers(60))

    async def scenario() -> None:
        sleeper = Member(kafka, small_batches(topic.name), broker_session_timeout=6.0)
        async with sleeper:
            late = await sleeper.take(2)
            sleeper.app.consumer._thread.thread_loop.call_soon_threadsafe(time.sleep, 15.0)  # no heartbeats
            async with Member(kafka, small_batches(topic.name, rows=15)) as owner:
                found = await owner.take(2)
                assert _tokens(found) == _tokens(late)
                assert all(batch.live for batch in late), "it doesn't know yet"
                for batch in found:
                    batch.ack()
                found += await owner.take(2)
                for batch in late:
                    batch.ack()  # which has it commit when it is awake
                await until(lambda: not sleeper.app.consumer.member.assignment.partitions, "let go")
                assert not any(batch.live for batch in late)
                await until(lambda: len(topic.members) == 2, "back in the group")
                members = (sleeper, owner)
                await until(lambda: sum(member.partitions for member in members) == 1, "shared")
                for batch in found[2:]:
                    batch.ack()  # which counts unless the partition has moved since
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while topic.committed != {0: 60}:
                        busy = owner if owner.partitions else sleeper  # it may move once more
                        with contextlib.suppress(TimeoutError):
                            found += await asyncio.wait_for(busy.take(), 0.5)
                            found[-1].ack()
                assert set(values_of(found)) == set(numbers(60))

    asyncio.run(scenario())


def test_a_commit_is_made_only_as_the_member_of_the_assignment(kafka: KafkaSettings, topic: Topic) -> None:
    """A commit without a member, of an earlier generation or of another member is refused."""
    topic.produce(numbers(10))

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name)) as member:
            await member.take()
            broker = member.app.consumer.member.broker
            now = broker.membership
            commits = {TopicPartition(topic.name, 0): Commit(7, "")}
            for other in (
                NOBODY,
                now._replace(generation=now.generation - 1),
                now._replace(member_id="another"),
            ):
                assert not await broker.commit(other, commits)
            assert topic.committed == {0: 0}
            assert await broker.commit(now, commits)
            assert topic.committed == {0: 7}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        pytest.param("1 - 41999 00000000", "damaged metadata", id="damaged"),
        pytest.param("9 later", "metadata of version '9', expected 1, 2 or 3", id="version-to-come"),
    ],
)
def test_unreadable_metadata_halts(kafka: KafkaSettings, topic: Topic, metadata: str, message: str) -> None:
    """The message names place and fault; nothing is delivered, and the commit stays as it is."""
    topic.produce(numbers(20))
    topic.commit(5, metadata)
    failure = halted(kafka, topic.name)
    assert type(failure) is HaltError
    assert f"group {kafka.group_id}, {topic.name}-0: {message}" in str(failure)
    assert topic.read_commit() == (5, metadata)


def test_an_offset_set_by_hand_is_the_start(kafka: KafkaSettings, topic: Topic) -> None:
    """A commit without metadata has no ranges in flight."""
    topic.produce(numbers(20))
    topic.commit(5)

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name)) as member:
            assert ranges_of(await member.take_records(15)) == [(5, 14), (15, 19)]

    asyncio.run(scenario())


def test_large_ranges_of_many_partitions_are_cut_again_in_little_memory(kafka: KafkaSettings) -> None:
    """Each range is larger than the limit on memory; all are delivered, one after the other."""
    topic = Topic(kafka, partitions=4)
    for partition in range(4):
        topic.produce([bytes(800)] * 100, partition)
        topic.commit(0, str(Ranges("-", (49, 99))), partition)
    options = small_batches(topic.name, max_bytes=20_000)

    async def scenario() -> None:
        async with Member(kafka, options, broker_max_poll_records=10) as member:
            batches = await member.take_records(400)
            assert sorted((batch.partition, batch.first, batch.last) for batch in batches) == [
                (partition, first, last) for partition in range(4) for first, last in ((0, 49), (50, 99))
            ]

    asyncio.run(scenario())
