"""Fetching into micro-batches, with a broker in memory: room, gaps, deleted records, replays."""

import asyncio
import logging

import pytest
from support.fake_broker import TP, FakeBroker, FakeDeriver, Worker, committed, ranges_of
from support.records import Record

from pipeline import metrics
from pipeline.catalog import BatchPolicy
from pipeline.errors import HaltError
from pipeline.transport.broker import TopicPartition

PLAIN = TopicPartition("plain", 0)
OTHER = TopicPartition("events", 1)


def test_a_partition_with_enough_in_flight_is_not_fetched_from() -> None:
    """An acknowledgement makes room, and fetching goes on where it stopped."""
    broker = FakeBroker()
    broker.produce(30)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        first, second = await worker.fetch()
        position = broker.positions[TP]
        assert await worker.fetch() == []
        broker.produce(5)
        assert await worker.fetch() == []
        assert broker.positions[TP] == position, "ten records wait, which is a micro-batch"
        second.ack()
        first.ack()
        assert ranges_of(await worker.fetch()) == [(20, 29)]

    asyncio.run(scenario())


def test_a_topic_without_a_batch_policy_is_delivered_record_by_record() -> None:
    """Its records pass through unchanged, also while no micro-batch has room."""
    broker = FakeBroker(ids={"events": "id", "plain": "id-2"})
    broker.produce(20)
    broker.produce(3, PLAIN)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        assert worker.held == {TP}
        delivered = await worker.member.fetching.next(broker.assigned(), 0.0)
        assert delivered is not None
        assert delivered[PLAIN] == broker.logs[PLAIN]
        assert ranges_of(delivered[TP]) == [(0, 9), (10, 19)]
        broker.produce(1, PLAIN)
        delivered = await worker.member.fetching.next(broker.assigned(), 0.0)
        assert delivered is not None
        assert delivered[PLAIN] == broker.logs[PLAIN][3:]

    asyncio.run(scenario())


def test_records_that_arrive_with_a_rebalance_are_not_delivered() -> None:
    """After it, fetching starts at the committed offsets."""
    broker = FakeBroker()
    broker.produce(10)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        broker.hooks["fetch"] = lambda: setattr(worker.flow, "flow_active", False)
        assert await worker.fetch() == []
        assert broker.commits == {TP: committed(0)}, "no range"

    asyncio.run(scenario())


def test_a_missing_acl_halts() -> None:
    """The worker is told, and nothing is delivered."""
    broker = FakeBroker()
    broker.produce(10)
    broker.fail("fetch", error=HaltError("no ACL"))

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        assert await worker.fetch() == []
        assert [str(failure) for failure in worker.failures] == ["no ACL"]

    asyncio.run(scenario())


def test_memory_is_bounded_but_a_range_that_is_cut_again_is_completed() -> None:
    """Above the limit, one partition with an incomplete range goes on at a time; all others wait."""
    other = TopicPartition("events", 1)
    broker = FakeBroker(commits={TP: committed(0, 9), other: committed(0, 9)})
    broker.produce(5)
    broker.produce(5, other)

    async def scenario() -> None:
        worker = Worker(broker, max_bytes=1)
        await worker.assign()
        assert await worker.fetch() == []
        for tp in (TP, other):
            broker.produce(5, tp)
        [batch] = await worker.fetch()
        assert (batch.partition, batch.first, batch.last) == (0, 0, 9)
        assert broker.positions == {TP: 10, other: 5}
        batch.ack()
        assert ranges_of(await worker.fetch()) == [(0, 9)]

    asyncio.run(scenario())


def test_offsets_without_records_are_no_loss() -> None:
    """Transaction markers take offsets; the range covers them."""
    broker = FakeBroker()
    broker.logs[TP] = [Record(2), Record(5)]

    async def scenario() -> None:
        worker = Worker(broker)
        before = metrics.RECORDS_LOST.labels("events")._value.get()
        await worker.assign()
        assert ranges_of(await worker.fetch()) == [(0, 5)]
        assert metrics.RECORDS_LOST.labels("events")._value.get() == before

    asyncio.run(scenario())


def test_deleted_records_are_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The rest is delivered."""
    broker = FakeBroker(commits={TP: committed(10)})
    broker.produce(40)
    broker.delete_before(25)
    before = metrics.RECORDS_LOST.labels("events")._value.get()

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        assert ranges_of(await worker.fetch()) == [(10, 34), (35, 39)]

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert metrics.RECORDS_LOST.labels("events")._value.get() - before == 15
    [line] = caplog.messages
    assert line == (
        "events-0: 15 records are lost: offsets 10 to 24 were deleted by retention before they were consumed"
    )


def test_a_log_that_lost_consumed_records_halts() -> None:
    """An offset below the expected one means that other records have taken the offsets; the partition is let go."""
    broker = FakeBroker(commits={TP: committed(1000)})
    broker.produce(20)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        assert await worker.fetch() == []
        [failure] = worker.failures
        assert str(failure).startswith("events-0: Kafka's log has offset 0 where 1000 was expected")
        assert worker.held == set()

    asyncio.run(scenario())


def test_a_gap_is_looked_into_until_the_broker_answers() -> None:
    """The records wait meanwhile."""
    broker = FakeBroker(commits={TP: committed(10)})
    broker.produce(20)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        broker.delete_before(15)
        broker.fail("earliest_offsets", times=2)
        assert ranges_of(await worker.fetch()) == [(10, 19)]

    asyncio.run(scenario())
    assert broker.requests.count("earliest_offsets") == 4


# Replays.


def test_a_replay_ends_at_the_committed_offset() -> None:
    """Stored records come again for the deriver, marked as replayed; committed ranges follow, then new ones."""
    broker = FakeBroker(commits={TP: committed(25, 27, 34)})
    broker.produce(40)

    async def scenario() -> None:
        worker = Worker(broker, batches_in_flight=9, deriver=FakeDeriver(3))
        await worker.assign()
        batches = await worker.fetch()
        assert ranges_of(batches) == [(3, 12), (13, 22), (23, 24), (25, 27), (28, 34), (35, 39)]
        assert [batch.replayed for batch in batches] == [True] * 3 + [False] * 3
        for batch in batches[:3]:
            batch.ack()
        assert not await worker.member.commits.commit(), "a replay is no part of the state"
        for batch in batches[3:]:
            batch.ack()
            assert not await worker.member.commits.commit(), "it takes the deriver's acknowledgement too"
            batch.ack()
            assert await worker.member.commits.commit()
        assert broker.commits == {TP: committed(40)}

    asyncio.run(scenario())


@pytest.mark.parametrize(("needed", "start"), [(0, 5), (7, 7), (30, 20)], ids=["deleted", "within", "ahead"])
def test_a_replay_begins_within_the_log_and_before_the_committed_offset(needed: int, start: int) -> None:
    """The deriver may need deleted records, or be ahead of the committed offset."""
    broker = FakeBroker(commits={TP: committed(20)})
    broker.produce(30)
    broker.delete_before(5)

    async def scenario() -> None:
        worker = Worker(broker, deriver=FakeDeriver(needed))
        await worker.assign()
        assert broker.positions == {TP: start}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("before", "missed", "lost", "ranges"),
    [
        pytest.param(12, 9, 0, [(3, 21), (22, 24)], id="some"),
        pytest.param(25, 22, 0, [(25, 34), (35, 39)], id="all"),
        pytest.param(28, 22, 3, [(25, 37), (38, 39)], id="more"),
    ],
)
def test_the_deriver_is_told_of_records_that_were_deleted_before_their_replay(
    before: int, missed: int, lost: int, ranges: list[tuple[int, int]]
) -> None:
    """They are stored; only records at or above the committed offset are lost."""
    broker = FakeBroker(commits={TP: committed(25)})
    broker.produce(40)
    deriver = FakeDeriver(3)
    counted = metrics.RECORDS_LOST.labels("events")._value.get()

    async def scenario() -> None:
        worker = Worker(broker, deriver=deriver)
        await worker.assign()
        broker.delete_before(before)
        assert ranges_of(await worker.fetch()) == ranges

    asyncio.run(scenario())
    assert deriver.missed_records == missed
    assert metrics.RECORDS_LOST.labels("events")._value.get() - counted == lost


def test_a_log_that_ends_before_the_committed_offset_is_not_replayed() -> None:
    """New records would stand at the offsets of stored ones, and pass for replayed."""
    broker = FakeBroker(commits={TP: committed(30)})
    broker.produce(20)

    async def scenario() -> None:
        worker = Worker(broker, deriver=FakeDeriver(5))
        await worker.assign()
        [failure] = worker.failures
        assert str(failure).startswith("events-0: Kafka's log ends at 20, and 30 is committed")
        assert worker.held == set()

    asyncio.run(scenario())


def test_partitions_that_are_nearly_due_are_committed_with_one_that_is() -> None:
    """One commit and one look at the topics' ids carry the ranges of both."""
    other = TP._replace(partition=1)
    broker = FakeBroker(commits={TP: committed(0), other: committed(0)})
    broker.produce(1)
    broker.produce(0, other)
    policy = BatchPolicy(max_rows=100, max_bytes=10_000, linger_seconds=1.0)

    async def scenario() -> None:
        worker = Worker(broker, policies={"events": policy})
        await worker.assign()
        assert await worker.fetch() == []
        worker.now += 0.2
        broker.produce(1, other)
        assert await worker.fetch() == []
        commits = broker.requests.count("commit")
        worker.now += 0.81
        assert ranges_of(await worker.fetch()) == [(0, 0), (0, 0)]
        assert broker.requests.count("commit") == commits + 1

    asyncio.run(scenario())


@pytest.mark.parametrize(("since_fetch", "due_in"), [(0.0, 1.0), (0.04, 0.96), (0.5, 0.9)])
def test_the_linger_counts_from_the_fetch_before(since_fetch: float, due_in: float) -> None:
    """Records may have waited at the broker since then: a tenth of the linger counts, more doesn't."""
    broker = FakeBroker()
    broker.produce(1)
    broker.produce(0, OTHER)
    policy = BatchPolicy(max_rows=100, max_bytes=100_000, linger_seconds=1.0)

    async def scenario() -> None:
        worker = Worker(broker, policies={"events": policy})
        await worker.assign()
        assert await worker.fetch() == []
        worker.now += since_fetch
        broker.produce(1, OTHER)
        assert await worker.fetch() == []
        assert worker.member.assignment.partitions[OTHER].due_at == pytest.approx(worker.now + due_in, abs=1e-5, rel=0)

    asyncio.run(scenario())
