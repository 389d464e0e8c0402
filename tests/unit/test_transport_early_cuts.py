"""Micro-batches that are cut before they are complete, with a broker in memory."""

import asyncio
from typing import Any

from support.fake_broker import TP, FakeBroker, Worker, ranges_of
from support.records import parts_of

from pipeline.catalog import BatchPolicy
from pipeline.transport.broker import TopicPartition

OTHER = TopicPartition("events", 1)
_POLICY = BatchPolicy(max_rows=100, max_bytes=100_000, linger_seconds=60.0)
_QUIET = 15.1
"""Seconds after which a burst is over: a quarter of the linger."""


def _two_partitions(first: int, second: int, policy: BatchPolicy = _POLICY, **options: Any) -> Worker:
    """Return a worker on two partitions with so many records."""
    broker = FakeBroker()
    broker.produce(first)
    broker.produce(second, OTHER)
    return Worker(broker, policies={"events": policy}, **options)


async def _burst(worker: Worker) -> None:
    """Begin a burst in one partition: take the micro-batch that is cut early, and acknowledge it."""
    await worker.assign()
    [batch] = await worker.fetch()
    batch.ack()


def test_when_memory_is_short_the_largest_is_cut_and_the_others_grow() -> None:
    """What is done makes room again, so that the next micro-batch is larger."""

    async def scenario() -> None:
        worker = _two_partitions(3, 5, enough_in_flight=1, max_bytes=1)
        await worker.assign()
        [batch] = await worker.fetch()
        assert (batch.partition, batch.first, batch.last) == (1, 0, 4)
        assert await worker.fetch() == []
        batch.ack()
        [batch] = await worker.fetch()
        assert (batch.partition, batch.first, batch.last) == (0, 0, 2)

    asyncio.run(scenario())


def test_when_memory_is_short_records_in_flight_do_not_count() -> None:
    """The next one is cut where most waits, although another partition holds more."""

    async def scenario() -> None:
        worker = _two_partitions(9, 1, enough_in_flight=2, max_bytes=1)
        await worker.assign()
        _, second = await worker.fetch()
        second.ack()
        for tp, partition in worker.member.assignment.partitions.items():
            worker.broker.produce(2 if tp == TP else 5, tp)
            partition.add(parts_of(worker.broker.logs[tp][-2 if tp == TP else -5 :]), worker.now)
        [batch] = await worker.fetch()
        assert (batch.partition, len(batch)) == (OTHER.partition, 5)

    asyncio.run(scenario())


def test_a_tenth_of_a_micro_batch_is_enough() -> None:
    """Nothing of it lingers while the rest of the worker may be idle; less than a tenth does, and a second one does."""

    async def scenario() -> None:
        worker = _two_partitions(9, 10)
        await worker.assign()
        assert ranges_of(await worker.fetch()) == [(0, 9)]
        worker.broker.produce(20, OTHER)
        assert await worker.fetch() == []
        worker.broker.produce(1)
        assert ranges_of(await worker.fetch()) == [(0, 9)]

    asyncio.run(scenario())


def test_while_enough_is_in_flight_micro_batches_grow() -> None:
    """The one that is cut next is the largest."""

    async def scenario() -> None:
        worker = _two_partitions(10, 0, enough_in_flight=1)
        await worker.assign()
        [batch] = await worker.fetch()
        worker.broker.produce(30)
        worker.broker.produce(40, OTHER)
        assert await worker.fetch() == []
        worker.broker.produce(20, OTHER)
        assert await worker.fetch() == []
        batch.ack()
        [batch] = await worker.fetch()
        assert (batch.partition, len(batch)) == (OTHER.partition, 60)

    asyncio.run(scenario())


def test_the_rest_of_a_burst_does_not_linger() -> None:
    """When nothing of the partition is in flight and no more comes, it is cut; after that, records linger again."""

    async def scenario() -> None:
        worker = _two_partitions(10, 10, enough_in_flight=2)
        await worker.assign()
        first, second = await worker.fetch()
        worker.broker.produce(3)
        worker.broker.produce(4, OTHER)
        worker.now += _QUIET
        assert await worker.fetch() == []
        worker.now += _QUIET
        assert await worker.fetch() == [], "both are in flight"
        second.ack()
        worker.broker.produce(1, OTHER)
        assert await worker.fetch() == [], "more came"
        worker.now += _QUIET
        assert [(batch.partition, len(batch)) for batch in await worker.fetch()] == [(OTHER.partition, 5)]
        first.ack()
        [rest] = await worker.fetch()
        assert (rest.partition, len(rest)) == (TP.partition, 3)
        rest.ack()
        worker.broker.produce(5)
        assert await worker.fetch() == []
        worker.now += _QUIET
        assert await worker.fetch() == []

    asyncio.run(scenario())


def test_an_empty_poll_does_not_end_a_burst() -> None:
    """The broker waits for more records before it answers, longer than a poll."""

    async def scenario() -> None:
        worker = _two_partitions(10, 0)
        await _burst(worker)
        worker.broker.produce(1)
        assert await worker.fetch() == []
        worker.now += _QUIET / 2
        assert await worker.fetch() == [], "nothing came"
        worker.broker.produce(1)
        assert await worker.fetch() == []
        worker.now += _QUIET / 2
        assert await worker.fetch() == []

    asyncio.run(scenario())


def test_the_end_of_a_burst_cuts_no_other_partition() -> None:
    """Records of a trickle linger, also of the same topic."""

    async def scenario() -> None:
        worker = _two_partitions(10, 1)
        await _burst(worker)
        worker.broker.produce(1)
        assert await worker.fetch() == []
        worker.now += _QUIET
        assert [(each.partition, len(each)) for each in await worker.fetch()] == [(TP.partition, 1)]

    asyncio.run(scenario())


def test_records_linger_also_after_many_micro_batches_at_a_trickle() -> None:
    """Micro-batches that lingered are no burst: each would be followed by one with few rows."""

    async def scenario() -> None:
        worker = _two_partitions(3, 3, enough_in_flight=1)
        await worker.assign()
        assert await worker.fetch() == []
        worker.now += 61
        batches = await worker.fetch()
        assert len(batches) == 2
        worker.broker.produce(2)
        assert await worker.fetch() == []
        for each in batches:
            each.ack()
        worker.now += _QUIET
        assert await worker.fetch() == []

    asyncio.run(scenario())


def test_time_in_which_a_partition_is_not_asked_for_more_is_no_end_of_its_burst() -> None:
    """While memory is short, nothing comes of it, however much there is."""

    async def scenario() -> None:
        worker = _two_partitions(10, 0, max_bytes=50)
        await worker.assign()
        [batch] = await worker.fetch()
        worker.broker.produce(1)
        worker.broker.produce(30, OTHER)
        [large] = await worker.fetch()
        assert large.partition == OTHER.partition
        batch.ack()
        worker.broker.produce(9)
        for _ in range(3):
            worker.now += _QUIET
            assert await worker.fetch() == []

    asyncio.run(scenario())


def test_the_rest_of_a_burst_has_the_least_rows_of_an_insert() -> None:
    """Fewer linger as long as `max_linger_seconds` says."""
    policy = _POLICY.model_copy(update={"min_rows": 5, "max_linger_seconds": 600.0})

    async def scenario() -> None:
        worker = _two_partitions(10, 0, policy)
        await _burst(worker)
        worker.broker.produce(4)
        assert await worker.fetch() == []
        worker.now += _QUIET
        assert await worker.fetch() == []
        worker.now += 100
        assert await worker.fetch() == []

    asyncio.run(scenario())


def test_a_burst_ends_with_the_assignment() -> None:
    """The next owner of a partition, or the same worker again, lets its records linger."""

    async def scenario() -> None:
        worker = _two_partitions(10, 0)
        await _burst(worker)
        assert worker.member.fetching._bursts
        await worker.assign()
        [again] = await worker.fetch()
        again.ack()
        worker.broker.produce(1)
        assert await worker.fetch() == []
        assert not worker.member.fetching._bursts
        worker.now += _QUIET
        assert await worker.fetch() == []

    asyncio.run(scenario())


def test_when_memory_is_short_a_trickle_lingers() -> None:
    """Its records aren't what takes the memory."""

    async def scenario() -> None:
        worker = _two_partitions(9, 1, max_bytes=10)
        await worker.assign()
        assert [(batch.partition, len(batch)) for batch in await worker.fetch()] == [(TP.partition, 9)]
        assert await worker.fetch() == []

    asyncio.run(scenario())


def test_a_topic_that_is_stuck_does_not_delay_another() -> None:
    """Its micro-batches in flight count for it alone."""
    calm = TopicPartition("calm", 0)
    broker = FakeBroker(ids={"events": "id", "calm": "id-2"})
    for tp in (TP, OTHER):
        broker.produce(10, tp)
    broker.produce(0, calm)

    async def scenario() -> None:
        worker = Worker(broker, enough_in_flight=2, policies={"events": _POLICY, "calm": _POLICY})
        await worker.assign()
        assert len(await worker.fetch()) == 2
        broker.produce(10, calm)
        assert [batch.topic for batch in await worker.fetch()] == ["calm"]

    asyncio.run(scenario())
