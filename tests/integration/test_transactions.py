"""Transactions of producers, on a real broker: aborted records are never delivered, open ones after their commit."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.faust_member import Member, ranges_of, small_batches, until, values_of
from support.kafka_topic import Topic
from support.transactions import TransactionalProducer, values

from pipeline.config import KafkaSettings
from pipeline.kafka.offsets import TopicReader

pytestmark = pytest.mark.integration

Begin = Callable[[str], TransactionalProducer]


@pytest.fixture
def begin(kafka: KafkaSettings) -> Iterator[Begin]:
    """Make producers with transactions; what is open at the end is aborted."""
    with ExitStack() as producers:
        yield lambda name: producers.enter_context(TransactionalProducer(kafka, f"{kafka.group_id}.{name}"))


def _end(kafka: KafkaSettings, topic: Topic) -> int:
    with TopicReader(kafka, topic.name) as reader:
        return reader.ranges([0])[0].stop


def test_aborted_records_are_not_delivered_and_offsets_reach_the_end(
    kafka: KafkaSettings, topic: Topic, begin: Begin
) -> None:
    """Records of committed transactions and of none arrive in order; an aborted one is at the end."""
    producer = begin("a")
    producer.send(topic.name, values(range(10)))
    producer.abort()
    producer.send(topic.name, values(range(10, 20)))
    producer.commit()
    topic.produce([b"20"])
    producer.send(topic.name, values(range(21, 30)))
    producer.abort()

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name)) as member:
            assert values_of(await member.take_records(11)) == [b"%d" % number for number in range(10, 21)]
            await until(lambda: topic.committed == {0: 33}, "committed to the end")
            assert _end(kafka, topic) == 33
            assert await member.idle_for(0.5)

    asyncio.run(scenario())


def test_an_open_transaction_holds_back_its_records_and_all_behind_them(
    kafka: KafkaSettings, topic: Topic, begin: Begin
) -> None:
    """They arrive when it is committed, in the order of the log; until then the group's lag shows them."""
    topic.produce([b"0"])
    producer = begin("a")
    producer.send(topic.name, values([1, 2]))
    topic.produce([b"3"])

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name)) as member:
            assert values_of(await member.take_records(1)) == [b"0"]
            assert await member.idle_for(1.0)
            assert topic.committed == {0: 1}
            assert _end(kafka, topic) == 4
            await asyncio.to_thread(producer.commit)
            assert values_of(await member.take_records(3)) == [b"1", b"2", b"3"]
            await until(lambda: topic.committed == {0: 5}, "committed to the end")

    asyncio.run(scenario())


@pytest.mark.parametrize("codec", ["none", "gzip", "zstd"])
def test_transactions_of_several_producers_are_told_apart(
    kafka: KafkaSettings, topic: Topic, begin: Begin, codec: str
) -> None:
    """Batches of committed, aborted and no transactions alternate in one partition."""
    kept, dropped = begin("kept"), begin("dropped")
    expected: list[bytes] = []
    for number in range(0, 400, 4):
        kept.send(topic.name, values([number]))
        dropped.send(topic.name, values([number + 1, number + 2]))
        topic.produce([b"%d" % (number + 3)], codec=codec)
        expected += [b"%d" % number, b"%d" % (number + 3)]
        if number % 20 == 8:
            dropped.abort()
        if number % 28 == 24:
            kept.commit()
    kept.commit()
    dropped.abort()

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name, rows=50)) as member:
            assert values_of(await member.take_records(len(expected))) == expected
            await until(lambda: topic.committed == {0: _end(kafka, topic)}, "committed to the end")

    asyncio.run(scenario())


def test_a_topic_of_aborted_records_only_is_passed(kafka: KafkaSettings, topic: Topic, begin: Begin) -> None:
    """Nothing is delivered, and a later member begins behind them."""
    producer = begin("a")
    for _ in range(3):
        producer.send(topic.name, values(range(5)))
        producer.abort()

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name)) as member:
            await until(lambda: topic.committed == {0: 18}, "committed to the end")
            assert await member.idle_for(0.2)
        async with Member(kafka, small_batches(topic.name)) as member:
            topic.produce([b"after"])
            [batch] = await member.take()
            assert ranges_of([batch]) == [(18, 18)]
            assert values_of([batch]) == [b"after"]

    asyncio.run(scenario())
