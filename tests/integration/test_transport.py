"""The batch transport in Faust apps on a real broker: what comes, what is committed, and what comes again."""

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import pytest
from support.faust_member import Member, numbers, ranges_of, small_batches, until, values_of
from support.kafka_topic import Topic

from pipeline.config import KafkaSettings
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.options import TransportOptions

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("codec", ["none", "gzip", "lz4", "snappy", "zstd"])
def test_micro_batches_carry_consecutively_what_was_produced(kafka: KafkaSettings, topic: Topic, codec: str) -> None:
    """Whatever the codec: each value once, in order, byte for byte, a missing one too."""
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


def test_micro_batches_end_at_rows_at_bytes_or_after_the_linger(kafka: KafkaSettings, topic: Topic) -> None:
    """Ten rows, or what fits into 1024 bytes, at once; fewer only when nothing more has come for long enough."""
    topic.produce([*numbers(20), bytes(1000), bytes(400), bytes(400), bytes(400), *numbers(3)])

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name, linger_seconds=5.0, batches_in_flight=9)) as member:
            assert ranges_of(await member.take(4)) == [(0, 9), (10, 19), (20, 20), (21, 22)]
            assert await member.idle_for(0.5)
            assert ranges_of(await member.take()) == [(23, 26)]

    asyncio.run(scenario())


def test_another_topic_of_the_app_stays_fausts_own(kafka: KafkaSettings, topic: Topic) -> None:
    """Record by record, acknowledged and committed by Faust, beside a topic with micro-batches of which none is."""
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


def test_what_an_agent_fails_on_is_not_committed_and_comes_again(kafka: KafkaSettings, topic: Topic) -> None:
    """An agent that raises has Faust acknowledge; nothing is committed for it, and a restart delivers it again."""
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


def test_stock_faust_loses_what_an_agent_fails_on(kafka: KafkaSettings, topic: Topic) -> None:
    """The same with Faust's own transport and `take`: committed, though the agent raised."""
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
    """Acknowledged out of order, the later ones are committed with the first; what is left is all that comes again."""
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


def test_a_graceful_stop_waits_for_what_is_in_flight_and_a_restart_goes_on_there(
    kafka: KafkaSettings, topic: Topic
) -> None:
    """Micro-batches that are done in time are committed in the end, and only what follows them comes."""
    topic.produce(numbers(50))
    taken: list[MicroBatch] = []

    async def finish_later(batch: MicroBatch) -> None:
        taken.append(batch)
        asyncio.get_running_loop().call_later(0.5, batch.ack)

    async def scenario() -> None:
        async with Member(
            kafka, small_batches(topic.name, drain_seconds=5.0), finish_later, broker_commit_interval=60.0
        ):
            await until(lambda: len(taken) == 2, "two in flight")
        assert topic.committed == {0: 20}
        async with Member(kafka, small_batches(topic.name)) as member:
            assert values_of(await member.take_records(30)) == numbers(30, start=20)

    asyncio.run(scenario())


def test_members_that_come_and_go_under_load_lose_and_repeat_nothing(kafka: KafkaSettings) -> None:
    """Four partitions, records produced throughout, a second member joining and leaving twice: each comes just once."""
    topic = Topic(kafka, partitions=4)
    seen: Counter[bytes | None] = Counter()
    produced = 0
    over = asyncio.Event()

    async def finish_soon(batch: MicroBatch) -> None:
        def finish() -> None:
            if batch.live:
                seen.update(batch.values)
                batch.ack()

        asyncio.get_running_loop().call_later(0.05, finish)

    def more_than(records: int) -> bool:
        return seen.total() > records

    async def keep_producing() -> None:
        nonlocal produced
        while not over.is_set():
            await asyncio.to_thread(topic.produce, numbers(100, produced), produced // 100 % 4)
            produced += 100

    async def scenario() -> None:
        load = asyncio.create_task(keep_producing())
        batching = small_batches(topic.name, rows=100, drain_seconds=5.0)
        async with Member(kafka, batching, finish_soon) as first:
            await until(lambda: first.partitions == 4, "alone")
            for _ in range(2):
                async with Member(kafka, batching, finish_soon) as second:
                    await until(lambda: first.partitions == second.partitions == 2, "shared")
                    await until(partial(more_than, seen.total() + 500), "going on")
                await until(lambda: first.partitions == 4, "alone again")
            over.set()
            await load
            await until(lambda: seen.total() >= produced, "all seen")
        assert seen == Counter(numbers(produced))
        assert sum(topic.committed.values()) == produced

    asyncio.run(scenario())


def test_a_member_without_partitions_takes_over_from_the_start(kafka: KafkaSettings, topic: Topic) -> None:
    """It has waited with its flow open and nothing was ever committed: all comes again, from the first record on."""
    topic.produce(numbers(30))

    async def scenario() -> None:
        batching = small_batches(topic.name)
        members = [Member(kafka, batching), Member(kafka, batching)]
        async with members[0], members[1]:
            await until(lambda: sum(member.partitions for member in members) == 1 and len(topic.members) == 2, "both")
            busy, idle = sorted(members, key=lambda member: -member.partitions)
            await busy.take(2)
            await busy.app.stop()
            assert values_of(await idle.take_records(30)) == numbers(30)

    asyncio.run(scenario())


def test_memory_is_bounded_and_fetching_goes_on_when_there_is_room(kafka: KafkaSettings, topic: Topic) -> None:
    """With nothing acknowledged, no more is held than max_bytes and one fetch; acknowledged, all the rest comes."""
    values = [b"%0800d" % number for number in range(500)]
    topic.produce(values)
    bound, one_fetch = 20_000, 10 * 800
    batching = small_batches(topic.name, batches_in_flight=100, max_bytes=bound)

    async def scenario() -> None:
        async with Member(kafka, batching, broker_max_poll_records=10) as member:
            batches = await member.take(bound // 800)
            while not await member.idle_for(0.5):
                batches += await member.take()
            assert bound <= sum(batch.size for batch in batches) <= bound + one_fetch
            for batch in batches:
                batch.ack()
            assert values_of([*batches, *await member.take_records(500 - len(batches))]) == values

    asyncio.run(scenario())


def test_a_member_that_waits_for_acknowledgements_stays_in_its_group(kafka: KafkaSettings, topic: Topic) -> None:
    """It has no room to fetch for longer than a consumer may go without polling; then it goes on where it was."""
    topic.produce(numbers(20))

    async def scenario() -> None:
        batching = small_batches(topic.name, batches_in_flight=1)
        async with Member(kafka, batching, broker_max_poll_interval=1.0) as member:
            [batch] = await member.take()
            before = topic.members
            assert await member.idle_for(3.0)
            assert topic.members == before != set()
            batch.ack()
            assert ranges_of(await member.take_records(10)) == [(10, 19)]
            await until(lambda: topic.committed == {0: 20}, "committed")

    asyncio.run(scenario())
