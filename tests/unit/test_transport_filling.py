"""Size of micro-batches, with a broker in memory: what is cut early, and what is fetched from while memory fills."""

import asyncio
from typing import Any

from support.fake_broker import TP, FakeBroker, Worker, ranges_of
from support.records import Record, parts_of

from pipeline.catalog import BatchPolicy
from pipeline.transport.broker import TopicPartition
from pipeline.transport.micro_batch import MicroBatch

OTHER = TopicPartition("events", 1)


def _short_of_memory(first: int, second: int, *, enough_in_flight: int) -> Worker:
    """Return a worker on two partitions with so many records, whose memory is less than one record takes."""
    broker = FakeBroker()
    broker.produce(first)
    broker.produce(second, OTHER)
    policy = BatchPolicy(max_rows=100, max_bytes=100_000, linger_seconds=60.0)
    return Worker(broker, max_bytes=1, enough_in_flight=enough_in_flight, policies={"events": policy})


def test_when_memory_is_short_the_largest_is_cut_and_the_others_grow() -> None:
    """What is done makes room again, so that the next micro-batch is larger."""

    async def scenario() -> None:
        worker = _short_of_memory(3, 5, enough_in_flight=1)
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
        worker = _short_of_memory(9, 1, enough_in_flight=2)
        await worker.assign()
        _, second = await worker.fetch()
        second.ack()
        for tp, partition in worker.member.assignment.partitions.items():
            worker.broker.produce(2 if tp == TP else 5, tp)
            partition.add(parts_of(worker.broker.logs[tp][-2 if tp == TP else -5 :]), worker.now)
        [batch] = await worker.fetch()
        assert (batch.partition, len(batch)) == (OTHER.partition, 5)

    asyncio.run(scenario())


def _two_partitions(first: int, second: int, **options: Any) -> Worker:
    """Return a worker on two partitions with so many records; a micro-batch has 100, and lingers for a minute."""
    broker = FakeBroker()
    broker.produce(first)
    broker.produce(second, OTHER)
    return Worker(
        broker, policies={"events": BatchPolicy(max_rows=100, max_bytes=100_000, linger_seconds=60.0)}, **options
    )


def test_a_free_place_takes_a_tenth_of_a_micro_batch() -> None:
    """So nothing lingers while the rest of the worker is idle; less than a tenth does, and so does a second one."""

    async def scenario() -> None:
        worker = _two_partitions(9, 10)
        await worker.assign()
        assert ranges_of(await worker.fetch()) == [(0, 9)]
        worker.broker.produce(20, OTHER)
        assert await worker.fetch() == []
        worker.broker.produce(1)
        assert ranges_of(await worker.fetch()) == [(0, 9)]

    asyncio.run(scenario())


def test_a_tenth_is_by_bytes_too() -> None:
    """Few large records are worth an insert."""

    async def scenario() -> None:
        worker = _two_partitions(0, 0)
        await worker.assign()
        worker.broker.logs[TP] += [Record(offset, bytes(5000)) for offset in range(2)]
        assert ranges_of(await worker.fetch()) == [(0, 1)]

    asyncio.run(scenario())


def test_while_no_place_is_free_micro_batches_grow() -> None:
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
        worker.broker.produce(1)
        [batch] = await worker.fetch()
        assert (batch.partition, len(batch)) == (OTHER.partition, 60)

    asyncio.run(scenario())


def test_the_rest_of_a_burst_does_not_linger() -> None:
    """When all is done and no more comes, what waits is cut; after that, records linger again."""

    async def scenario() -> None:
        worker = _two_partitions(10, 0, enough_in_flight=1)
        await worker.assign()
        [batch] = await worker.fetch()
        worker.broker.produce(3)
        worker.broker.produce(4, OTHER)
        assert await worker.fetch() == []
        assert await worker.fetch() == [], "one is in flight"
        batch.ack()
        worker.broker.produce(1)
        assert await worker.fetch() == [], "more came"
        rest = await worker.fetch()
        assert [len(each) for each in rest] == [4, 4]
        for each in rest:
            each.ack()
        worker.broker.produce(5)
        assert await worker.fetch() == []
        assert await worker.fetch() == []

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
        assert await worker.fetch() == []

    asyncio.run(scenario())


def _kept(worker: Worker) -> dict[TopicPartition, int]:
    """Return the number of records that wait, by partition."""
    return {tp: len(each.waiting) for tp, each in worker.member.assignment.partitions.items()}


_RECORD_BYTES = 10


async def _after(worker: Worker, counts: dict[TopicPartition, int]) -> list[MicroBatch]:
    """Produce so many records of a known size, and fetch."""
    for tp, count in counts.items():
        start = worker.broker.end(tp)
        worker.broker.logs[tp] += [Record(start + number, bytes(_RECORD_BYTES)) for number in range(count)]
    return await worker.fetch()


def test_when_much_of_the_memory_is_used_one_micro_batch_after_the_other_is_completed() -> None:
    """That of the partition where most waits comes first. While a place is free, all are fetched from."""

    async def scenario() -> None:
        worker = _two_partitions(0, 0, enough_in_flight=1, max_bytes=120 * _RECORD_BYTES)
        await worker.assign()
        [batch] = await _after(worker, {TP: 20})
        assert await _after(worker, {TP: 40, OTHER: 30}) == []
        assert _kept(worker) == {TP: 40, OTHER: 30}
        assert await _after(worker, {TP: 5, OTHER: 5}) == []
        assert _kept(worker) == {TP: 45, OTHER: 30}, "more than half is used, and no place is free"
        batch.ack()
        [batch] = await _after(worker, {OTHER: 1})
        assert (batch.partition, len(batch)) == (TP.partition, 45)
        assert _kept(worker) == {TP: 0, OTHER: 36}
        assert await _after(worker, {TP: 10, OTHER: 10}) == []
        assert _kept(worker) == {TP: 0, OTHER: 46}

    asyncio.run(scenario())


def test_of_partitions_where_nothing_waits_the_one_that_was_cut_comes_last() -> None:
    """There is memory to complete one micro-batch, and to begin one."""
    third = TopicPartition("events", 2)

    async def scenario() -> None:
        worker = _two_partitions(0, 0, enough_in_flight=1, max_bytes=405 * _RECORD_BYTES)
        worker.broker.produce(0, third)
        await worker.assign()
        batches = await _after(worker, {TP: 200, OTHER: 50})
        assert [(batch.partition, len(batch)) for batch in batches] == [(TP.partition, 100), (TP.partition, 100)]
        assert _kept(worker) == {TP: 0, OTHER: 50, third: 0}
        assert await _after(worker, {TP: 1, third: 1}) == []
        assert _kept(worker) == {TP: 0, OTHER: 50, third: 1}

    asyncio.run(scenario())
