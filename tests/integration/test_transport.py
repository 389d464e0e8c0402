"""The batch transport in Faust apps on a real broker: delivery, commits, and repeated delivery."""

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import pytest
from support.faust_member import Member, numbers, ranges_of, small_batches, until, values_of
from support.kafka_topic import Topic

from pipeline.config import KafkaSettings
from pipeline.transport.adapter.connection import BrokerConnection
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.options import TransportOptions

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("codec", ["none", "gzip", "lz4", "snappy", "zstd"])
def test_micro_batches_have_all_produced_records_in_order(kafka: KafkaSettings, topic: Topic, codec: str) -> None:
    """With each codec, each value arrives once, in order, byte for byte; null values too."""
    values = [*numbers(997), b"", None, bytes(range(256))]
    topic.produce(values, codec=codec)

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name, rows=100)) as member:
            batches = await member.take_records(len(values))
            assert values_of(batches) == values
            assert [offset for first, last in ranges_of(batches) for offset in range(first, last + 1)] == list(
                range(1000)
            )
            await until(lambda: topic.committed == {0: 1000}, "committed")

    asyncio.run(scenario())


def test_each_connection_can_be_lost_at_any_moment(kafka: KafkaSettings, topic: Topic) -> None:
    """Each connection of a member is the one that takes a closed transport for a lost connection."""
    topic.produce(numbers(10))

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name)) as member:
            await member.take()
            connections = member.app.consumer._thread.client._client._conns.values()
            assert {type(connection) for connection in connections} == {BrokerConnection}

    asyncio.run(scenario())


def test_micro_batches_end_at_rows_at_bytes_or_after_the_linger(kafka: KafkaSettings, topic: Topic) -> None:
    """Ten rows, or 1024 bytes of records, are cut at once; fewer rows only after the linger."""
    topic.produce([*numbers(20), bytes(1000), bytes(400), bytes(400), bytes(400), *numbers(3)])

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name, linger_seconds=5.0, batches_in_flight=9)) as member:
            assert ranges_of(await member.take(4)) == [(0, 9), (10, 19), (20, 20), (21, 22)]
            assert await member.idle_for(0.5)
            assert ranges_of(await member.take()) == [(23, 26)]

    asyncio.run(scenario())


def test_another_topic_of_the_app_stays_fausts_own(kafka: KafkaSettings, topic: Topic) -> None:
    """Faust acknowledges and commits it record by record, beside a topic whose micro-batches aren't acknowledged."""
    plain = Topic(kafka, "plain")
    topic.produce(numbers(20))
    plain.produce(numbers(20))
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def consume(stream: Any) -> None:
        async for value in stream:
            await seen.put(value)

    async def scenario() -> None:
        member = Member(kafka, small_batches(topic.name))
        member.app.agent(member.app.topic(plain.name, value_serializer="json"))(consume)
        async with member:
            await member.take(2)
            await until(lambda: plain.committed == {0: 20}, "committed by Faust")
        assert [seen.get_nowait() for _ in range(seen.qsize())] == list(range(20))
        assert topic.committed == {0: 0}

    asyncio.run(scenario())


def test_a_micro_batch_whose_agent_fails_is_not_committed_and_comes_again(kafka: KafkaSettings, topic: Topic) -> None:
    """If an agent raises, Faust acknowledges; still nothing is committed, and a restart delivers it again."""
    topic.produce(numbers(20))
    failed: list[MicroBatch] = []

    async def fail(batch: MicroBatch) -> None:
        failed.append(batch)
        raise RuntimeError

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name), fail):
            await until(lambda: len(failed) == 2, "both delivered")
        assert topic.committed == {0: 0}
        async with Member(kafka, small_batches(topic.name)) as member:
            assert values_of(await member.take_records(20)) == values_of(failed)

    asyncio.run(scenario())


def test_stock_faust_loses_records_whose_agent_fails(kafka: KafkaSettings, topic: Topic) -> None:
    """With Faust's own transport and `take`, the records are committed though the agent raised."""
    topic.produce(numbers(20))

    async def fail(stream: Any) -> None:
        async for _ in stream.take(10, within=0.1):
            raise RuntimeError

    async def scenario() -> None:
        member = Member(kafka, TransportOptions(), broker=f"aiokafka://{kafka.bootstrap_servers}")
        member.app.agent(member.app.topic(topic.name, key_serializer="raw", value_serializer="raw"))(fail)
        async with member:
            await until(lambda: topic.committed.get(0, 0) > 0, "lost")

    asyncio.run(scenario())


def test_commits_never_pass_a_micro_batch_that_is_not_acknowledged(kafka: KafkaSettings, topic: Topic) -> None:
    """Later micro-batches are committed with the first one; only the remaining ones are delivered again."""
    topic.produce(numbers(40))

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name, batches_in_flight=4)) as member:
            first, second, third, fourth = await member.take(4)
            fourth.ack()
            second.ack()
            await member.app.commit(None)
            assert topic.committed == {0: 0}
            first.ack()
            await until(lambda: topic.committed == {0: 20}, "committed up to the gap")
        assert topic.committed == {0: 20}
        third.ack()
        assert not third.live
        async with Member(kafka, small_batches(topic.name)) as member:
            assert ranges_of(await member.take_records(20)) == [(20, 29), (30, 39)]

    asyncio.run(scenario())


def test_a_graceful_stop_waits_for_micro_batches_and_a_restart_continues_after_them(
    kafka: KafkaSettings, topic: Topic
) -> None:
    """Micro-batches that are done in time are committed at the end; only later records are delivered after it."""
    topic.produce(numbers(50))
    taken: list[MicroBatch] = []

    async def finish_later(batch: MicroBatch) -> None:
        taken.append(batch)
        asyncio.get_running_loop().call_later(2.0, batch.ack)

    async def scenario() -> None:
        async with Member(
            kafka, small_batches(topic.name, drain_seconds=20.0), finish_later, broker_commit_interval=60.0
        ):
            await until(lambda: len(taken) == 2, "two in flight")
        assert topic.committed == {0: 20}
        async with Member(kafka, small_batches(topic.name)) as member:
            assert values_of(await member.take_records(30)) == numbers(30, start=20)

    asyncio.run(scenario())


def _more_than(seen: Counter[bytes | None], records: int) -> bool:
    return seen.total() > records


def test_members_that_come_and_go_under_load_lose_and_repeat_nothing(kafka: KafkaSettings) -> None:
    """A second member joins and leaves twice while records are produced; each record arrives once."""
    topic = Topic(kafka, partitions=4)
    seen: Counter[bytes | None] = Counter()
    produced = 0
    over = asyncio.Event()

    async def finish_soon(batch: MicroBatch) -> None:
        def finish() -> None:
            if batch.live:
                seen.update(values_of([batch]))
                batch.ack()

        asyncio.get_running_loop().call_later(0.05, finish)

    async def keep_producing() -> None:
        nonlocal produced
        while not over.is_set():
            await asyncio.to_thread(topic.produce, numbers(100, produced), produced // 100 % 4)
            produced += 100

    async def scenario() -> None:
        load = asyncio.create_task(keep_producing())
        options = small_batches(topic.name, rows=100, drain_seconds=5.0)
        async with Member(kafka, options, finish_soon) as first:
            await until(lambda: first.partitions == 4, "alone")
            for _ in range(2):
                async with Member(kafka, options, finish_soon) as second:
                    await until(lambda: first.partitions == second.partitions == 2, "shared")
                    await until(partial(_more_than, seen, seen.total() + 500), "going on")
                await until(lambda: first.partitions == 4, "alone again")
            over.set()
            await load
            await until(lambda: seen.total() >= produced, "all seen")
        assert seen == Counter(numbers(produced))
        assert sum(topic.committed.values()) == produced

    asyncio.run(scenario())


def test_a_member_without_partitions_takes_over_from_the_start(kafka: KafkaSettings, topic: Topic) -> None:
    """It has waited with its flow open, and nothing was committed, so all records are delivered again."""
    topic.produce(numbers(30))

    async def scenario() -> None:
        options = small_batches(topic.name)
        members = [Member(kafka, options), Member(kafka, options)]
        async with members[0], members[1]:
            await until(lambda: sum(member.partitions for member in members) == 1 and len(topic.members) == 2, "both")
            busy, idle = sorted(members, key=lambda member: -member.partitions)
            await busy.take(2)
            await busy.app.stop()
            assert values_of(await idle.take_records(30)) == numbers(30)

    asyncio.run(scenario())


def test_memory_is_bounded_and_fetching_goes_on_when_there_is_room(kafka: KafkaSettings, topic: Topic) -> None:
    """Without acknowledgements, at most max_bytes and what is taken at once; after them, all other records arrive."""
    values = [b"%0800d" % number for number in range(500)]
    for first in range(0, len(values), 10):  # a batch of Kafka's each
        topic.produce(values[first : first + 10])
    bound, one_batch = 20_000, 10 * 800
    options = small_batches(topic.name, batches_in_flight=100, max_bytes=bound)

    async def scenario() -> None:
        async with Member(kafka, options, broker_max_poll_records=1) as member:
            batches = await member.take(bound // 800)
            while not await member.idle_for(0.5):
                batches += await member.take()
            assert bound <= sum(batch.size for batch in batches) <= bound + one_batch
            for batch in batches:
                batch.ack()
            assert values_of([*batches, *await member.take_records(500 - len(batches))]) == values

    asyncio.run(scenario())


def test_a_member_that_waits_for_acknowledgements_stays_in_its_group(kafka: KafkaSettings, topic: Topic) -> None:
    """It has no room to fetch for longer than the poll interval; then it continues at the same offset."""
    topic.produce(numbers(20))

    async def scenario() -> None:
        options = small_batches(topic.name, batches_in_flight=1)
        async with Member(kafka, options, broker_max_poll_interval=1.0) as member:
            [batch] = await member.take()
            before = topic.members
            assert await member.idle_for(3.0)
            assert topic.members == before != set()
            batch.ack()
            assert ranges_of(await member.take_records(10)) == [(10, 19)]
            await until(lambda: topic.committed == {0: 20}, "committed")

    asyncio.run(scenario())
