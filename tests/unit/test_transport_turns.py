"""Micro-batches that are complete for their age while all places are taken, with a broker in memory."""

import asyncio
from typing import Any

import pytest
from support.fake_broker import TP, FakeBroker, FakeDeriver, Worker, committed, ranges_of

from pipeline.catalog import BatchPolicy
from pipeline.transport.broker import TopicPartition
from pipeline.transport.micro_batch import MicroBatch

SECOND, THIRD = TopicPartition("events", 1), TopicPartition("events", 2)
CALM = TopicPartition("calm", 0)
_POLICY = BatchPolicy(max_rows=100, max_bytes=100_000, linger_seconds=0.1)
_LONG = BatchPolicy(max_rows=100, max_bytes=100_000, linger_seconds=60.0)


def _worker(**options: Any) -> Worker:
    """Return a worker with one place, on three partitions of `events` and one of `calm`."""
    broker = FakeBroker(ids={"events": "id", "calm": "id-2"})
    for tp in (TP, SECOND, THIRD, CALM):
        broker.produce(0, tp)
    given: dict[str, Any] = {"places": 1, "policies": {"events": _POLICY, "calm": _POLICY}}
    return Worker(broker, **given | options)


async def _older(worker: Worker, *partitions: TopicPartition, linger: float = 0.1) -> list[MicroBatch]:
    """Produce one record to each partition, 5 ms apart, and return the first micro-batch, when all are due."""
    await worker.assign()
    for tp in partitions:
        worker.broker.produce(1, tp)
        assert await worker.fetch() == []
        worker.now += 0.005
    worker.now += linger
    return await worker.fetch()


def test_the_partitions_of_a_topic_take_turns() -> None:
    """The one that has waited longest is first; those that wait for their turn get more records."""

    async def scenario() -> None:
        worker = _worker()
        [first] = await _older(worker, THIRD, TP, SECOND)
        assert first.partition == THIRD.partition
        worker.broker.produce(1, TP)
        assert await worker.fetch() == []
        first.ack()
        [second] = await worker.fetch()
        assert (second.partition, len(second)) == (TP.partition, 2)
        assert await worker.fetch() == []
        second.ack()
        assert [batch.partition for batch in await worker.fetch()] == [SECOND.partition]

    asyncio.run(scenario())


def test_a_turn_is_waited_for_half_a_linger() -> None:
    """Then the micro-batch is cut in any case: what is in flight may be stuck."""

    async def scenario() -> None:
        worker = _worker()
        await _older(worker, TP, SECOND)
        worker.now += 0.03
        assert await worker.fetch() == []
        worker.now += 0.02
        [late] = await worker.fetch()
        assert late.partition == SECOND.partition

    asyncio.run(scenario())


def test_a_turn_is_waited_for_100_ms_at_most() -> None:
    """With many partitions and slow commits, the last turn would come after half of a long linger otherwise."""

    async def scenario() -> None:
        worker = _worker(policies={"events": _LONG, "calm": _LONG})
        await _older(worker, TP, SECOND, linger=60.0)
        worker.now += 0.08
        assert await worker.fetch() == []
        worker.now += 0.02
        [late] = await worker.fetch()
        assert late.partition == SECOND.partition

    asyncio.run(scenario())


def test_a_topic_does_not_wait_for_another() -> None:
    """One that is stuck takes its own places alone."""

    async def scenario() -> None:
        worker = _worker()
        batches = await _older(worker, TP, CALM)
        assert {batch.topic for batch in batches} == {"events", "calm"}

    asyncio.run(scenario())


def test_a_full_micro_batch_waits_for_no_turn() -> None:
    """It can't grow."""

    async def scenario() -> None:
        worker = _worker(enough_in_flight=1)  # so that it isn't cut early
        await _older(worker, TP)
        worker.broker.produce(100, SECOND)
        assert ranges_of(await worker.fetch()) == [(0, 99)]

    asyncio.run(scenario())


def test_what_is_nearly_due_is_cut_with_another_only_while_there_is_a_place() -> None:
    """Two of three fit."""

    async def scenario() -> None:
        worker = _worker(places=2, policies={"events": _LONG, "calm": _LONG})
        await worker.assign()
        for tp in (TP, SECOND, THIRD):
            worker.broker.produce(1, tp)
            assert await worker.fetch() == []
            worker.now += 1
        worker.now += 57
        assert [batch.partition for batch in await worker.fetch()] == [TP.partition, SECOND.partition]

    asyncio.run(scenario())


def test_a_free_place_is_noticed_soon() -> None:
    """While a micro-batch waits for its turn, a fetch lasts 10 ms, or as long as the turn may be late."""

    async def scenario() -> None:
        policy = BatchPolicy(max_rows=100, max_bytes=100_000, linger_seconds=0.1)
        worker = _worker(policies={"events": policy, "calm": policy})
        await worker.assign()
        for tp, at in ((TP, 0.1), (SECOND, 0.0)):
            worker.broker.produce(1, tp)
            await worker.fetch()
            worker.now += at
        waits = []
        for seconds in (0.0, 0.05, 0.045, 0.025):
            worker.now += seconds
            await worker.member.fetching.next(worker.broker.assigned(), 60.0)
            waits.append(worker.broker.waits[-1])
        assert waits == pytest.approx([0.05, 0.025, 0.01, 0.005], abs=1e-6)

    asyncio.run(scenario())


def test_a_free_place_is_noticed_as_soon_with_a_long_linger() -> None:
    """Many partitions with quick inserts would wait for each other otherwise."""

    async def scenario() -> None:
        worker = _worker(policies={"events": _LONG, "calm": _LONG})
        await _older(worker, TP, SECOND, linger=60.0)
        await worker.member.fetching.next(worker.broker.assigned(), 60.0)
        assert worker.broker.waits[-1] == pytest.approx(0.01)

    asyncio.run(scenario())


def test_a_partition_that_may_not_be_cut_ends_no_fetch() -> None:
    """As many of its micro-batches are in flight as may be; the worker waits for an acknowledgement."""

    async def scenario() -> None:
        worker = _worker(batches_in_flight=1)
        await _older(worker, TP)
        worker.broker.produce(1, TP)
        assert await worker.fetch() == []
        worker.now += 100
        await worker.member.fetching.next(worker.broker.assigned(), 60.0)
        assert worker.broker.waits[-1] > 0.01

    asyncio.run(scenario())


def test_what_was_cut_early_takes_places() -> None:
    """Four bursts take them all, so that nothing that is nearly due is cut with them."""

    async def scenario() -> None:
        bursts, calm = ([TopicPartition("events", number) for number in numbers] for numbers in (range(4), range(4, 7)))
        broker = FakeBroker()
        for tp in bursts + calm:
            broker.produce(0, tp)
        worker = Worker(broker, places=3, enough_in_flight=4, policies={"events": _LONG})
        await worker.assign()
        for tp in calm:
            broker.produce(1, tp)
        assert await worker.fetch() == []
        worker.now += 50
        for tp in bursts:
            broker.produce(20, tp)
        assert [batch.partition for batch in await worker.fetch()] == [tp.partition for tp in bursts]

    asyncio.run(scenario())


def test_the_end_of_a_replay_waits_for_no_turn() -> None:
    """It gets no more records."""

    async def scenario() -> None:
        broker, partitions = FakeBroker(), (TP, SECOND, THIRD)
        for tp in partitions:
            broker.produce(3, tp)
            broker.commits[tp] = committed(3)
        worker = Worker(broker, places=1, policies={"events": _POLICY}, deriver=FakeDeriver(0))
        await worker.assign()
        delivered = await worker.fetch()
        assert [(batch.partition, batch.replayed) for batch in delivered] == [(tp.partition, True) for tp in partitions]

    asyncio.run(scenario())


def test_ranges_of_the_owner_before_wait_for_no_turn() -> None:
    """They end at known offsets, and get no more records."""

    async def scenario() -> None:
        broker, partitions = FakeBroker(), (TP, SECOND, THIRD)
        for tp in partitions:
            broker.produce(6, tp)
            broker.commits[tp] = committed(0, 3)
        worker = Worker(broker, places=1, policies={"events": _POLICY})
        await worker.assign()
        delivered = await worker.fetch()
        assert [(batch.partition, len(batch)) for batch in delivered] == [(tp.partition, 4) for tp in partitions]

    asyncio.run(scenario())


def test_a_partition_that_is_cut_twice_in_a_round_delivers_both() -> None:
    """A full micro-batch, and one that is nearly due with it."""

    async def scenario() -> None:
        broker = FakeBroker()
        broker.produce(20)
        policy = BatchPolicy(max_rows=10, max_bytes=100_000, linger_seconds=60.0)
        worker = Worker(broker, policies={"events": policy}, batches_in_flight=2)
        await worker.assign()
        first = await worker.fetch()
        broker.produce(15)
        assert (ranges_of(first), await worker.fetch()) == ([(0, 9), (10, 19)], [])
        worker.now += 50
        for batch in first:
            batch.ack()
        assert ranges_of(await worker.fetch()) == [(20, 29), (30, 34)]

    asyncio.run(scenario())
