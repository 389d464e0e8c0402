"""Topics that are created anew, logs that lost records, and a broker that is away, under the batch transport."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from threading import Timer
from typing import Any

import pytest
from support.faust_member import Member, halted, numbers, ranges_of, small_batches, until, values_of
from support.kafka_topic import Topic

from pipeline import metrics
from pipeline.config import KafkaSettings
from pipeline.devstack import Stack
from pipeline.errors import ChimeraError, HaltError
from pipeline.kafka.topics import TopicAdmin
from pipeline.transport.commit_metadata import Ranges

pytestmark = pytest.mark.integration


@pytest.fixture
def topic_id(kafka: KafkaSettings, topic: Topic) -> str:
    return TopicAdmin(kafka).ids([topic.name])[topic.name]


def test_a_topic_created_anew_while_no_worker_ran_is_consumed_from_its_beginning(
    kafka: KafkaSettings, topic: Topic, topic_id: str
) -> None:
    """The commit belongs to the earlier topic of this name, so it doesn't count."""
    topic.create_anew()
    topic.produce(numbers(20))
    topic.commit(5, str(Ranges(topic_id, (9, 14))))

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name, topic_ids=None)) as member:
            batches = await member.take_records(20)
            assert values_of(batches) == numbers(20)
            assert not any(batch.token.startswith(topic_id) for batch in batches)
            await until(lambda: topic.committed == {0: 20}, "committed")

    asyncio.run(scenario())


@pytest.mark.parametrize("records", [5, 20, 50], ids=["fewer", "as-many", "more"])
def test_a_topic_created_anew_while_it_is_consumed_is_consumed_from_its_beginning(
    kafka: KafkaSettings, topic: Topic, topic_id: str, records: int
) -> None:
    """All its records are delivered, however many, and none under a token of the earlier topic."""
    topic.produce(numbers(20))
    failures: list[ChimeraError] = []
    options = small_batches(topic.name, topic_ids=None, halt=failures.append, topic_check_seconds=0.5)

    async def scenario() -> None:
        async with Member(kafka, options) as member:
            await member.take_records(20)
            await until(lambda: topic.committed == {0: 20}, "committed")
            await asyncio.to_thread(topic.create_anew)
            await asyncio.to_thread(topic.produce, numbers(records, start=100))
            batches = await member.take_records(records)
            assert values_of(batches) == numbers(records, start=100)
            assert not any(batch.token.startswith(topic_id) for batch in batches)
            await until(lambda: topic.committed == {0: records}, "committed")

    asyncio.run(scenario())
    assert failures == []


def test_all_partitions_of_a_topic_created_anew_are_consumed_from_their_beginning(kafka: KafkaSettings) -> None:
    """One fetch has records of several partitions, and each is handled by itself."""
    topic = Topic(kafka, partitions=3)

    def fill(start: int) -> None:
        for partition in range(3):
            topic.produce(numbers(20, start=start), partition)

    fill(0)
    failures: list[ChimeraError] = []
    options = small_batches(topic.name, topic_ids=None, halt=failures.append, topic_check_seconds=0.5)

    async def scenario() -> None:
        async with Member(kafka, options) as member:
            await member.take_records(60)
            await until(lambda: topic.committed == dict.fromkeys(range(3), 20), "committed")
            await asyncio.to_thread(topic.create_anew)
            await asyncio.to_thread(fill, 100)
            batches = await member.take_records(60)
            assert Counter(values_of(batches)) == Counter(numbers(20, start=100) * 3)
            await until(lambda: topic.committed == dict.fromkeys(range(3), 20), "committed")

    asyncio.run(scenario())
    assert failures == []


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        pytest.param((), [(10, 34), (35, 39)], id="new-ranges"),
        pytest.param((19, 29), [(20, 29), (30, 39)], id="committed-ranges"),
    ],
)
def test_records_that_retention_deleted_are_counted_and_logged(
    kafka: KafkaSettings,
    topic: Topic,
    caplog: pytest.LogCaptureFixture,
    ends: tuple[int, ...],
    expected: list[tuple[int, int]],
) -> None:
    """The remaining records are delivered; a committed range without any isn't."""
    topic.produce(numbers(40))
    topic.commit(10, str(Ranges("-", ends)))
    topic.delete_records(25)
    before = metrics.RECORDS_LOST.labels(topic.name)._value.get()

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name)) as member:
            batches = await member.take_records(15)
            assert values_of(batches) == numbers(15, start=25)
            assert ranges_of(batches) == expected
            await until(lambda: topic.committed == {0: 40}, "committed")

    asyncio.run(scenario())
    assert metrics.RECORDS_LOST.labels(topic.name)._value.get() - before == 15
    [said] = [line for line in caplog.messages if "lost" in line]
    assert said == (
        f"[^-Consumer]: {topic.name}-0: 15 records are lost: "
        "offsets 10 to 24 were deleted by retention before they were consumed"
    )


def test_a_log_that_ends_before_the_committed_offset_halts(kafka: KafkaSettings, topic: Topic) -> None:
    """After an unclean leader election, acknowledged records are gone; a person has to decide."""
    topic.produce(numbers(20))
    topic.commit(1000)
    failure = halted(kafka, topic.name)
    assert type(failure) is HaltError
    assert str(failure).startswith(f"{topic.name}-0: Kafka's log has offset 0 where 1000 was expected")
    assert topic.committed == {0: 1000}


IMPATIENT: dict[str, Any] = {"answer_seconds": 1.0, "leave_seconds": 1.0, "retry_seconds": 0.2}


def test_a_takeover_waits_for_a_broker_that_is_away(kafka: KafkaSettings, topic: Topic, stack: Stack) -> None:
    """The broker stops answering during the takeover; it succeeds when the broker is back."""
    topic.produce(numbers(20))
    paused: list[float] = []

    def pause_then_look(topics: Iterable[str]) -> Mapping[str, str]:
        if not paused:
            paused.append(time.monotonic())
            stack.kafka.pause()
            Timer(4.0, stack.kafka.resume).start()
        return dict.fromkeys(topics, "-")

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name, topic_ids=pause_then_look, **IMPATIENT)) as member:
            assert values_of(await member.take_records(20)) == numbers(20)
            assert time.monotonic() - paused[0] > 3.5

    asyncio.run(scenario())


def test_records_are_delivered_after_the_broker_is_back(kafka: KafkaSettings, topic: Topic, stack: Stack) -> None:
    """When the broker is back, acknowledged micro-batches are committed, and fetched ones delivered."""
    topic.produce(numbers(60))

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name, **IMPATIENT)) as member:
            first, second = await member.take(2)
            stack.kafka.pause()
            first.ack()
            second.ack()
            assert await member.idle_for(2.5)
            stack.kafka.resume()
            assert values_of(await member.take_records(40)) == numbers(40, start=20)
            await until(lambda: topic.committed == {0: 60}, "committed")

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["pause", "kill"])
def test_a_stop_does_not_wait_for_a_broker_that_is_away(
    kafka: KafkaSettings, topic: Topic, stack: Stack, how: str
) -> None:
    """Micro-batches that can't be committed are delivered again later."""
    topic.produce(numbers(20))

    async def scenario() -> float:
        async with Member(kafka, small_batches(topic.name, **IMPATIENT)) as member:
            for batch in await member.take(2):
                batch.ack()
            getattr(stack.kafka, how)()
            began = time.monotonic()
        return time.monotonic() - began

    assert asyncio.run(scenario()) < 8
