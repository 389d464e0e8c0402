"""Offsets without a record, such as markers and aborted records: they hold nothing up, and nothing is lost."""

import asyncio
import logging

import pytest
from support.fake_broker import TP, FakeBroker, FakeDeriver, Worker, committed, ranges_of
from support.partitions import cut, partition_of, records_at

from pipeline import metrics
from pipeline.transport.commit_metadata import Closing
from pipeline.transport.micro_batch import State


def test_the_committed_offset_moves_past_them_when_nothing_before_them_is_left() -> None:
    """Not while a record waits or is in flight."""
    partition = partition_of()
    partition.add(records_at(range(5)), 0.0, 8)
    assert (partition.next_offset, partition.state.offset) == (8, 0)
    [batch] = partition.cut(0.0, hurry=True)
    assert (batch.first, batch.last, partition.state) == (0, 4, State(0, (4,)))
    assert partition.idle_at is None
    batch.ack()
    assert partition.state == State(8, ())
    partition.add([], 0.0, 11)
    assert partition.state == State(11, ())
    idle_at: int | None = partition.idle_at
    assert idle_at == 11


def test_those_between_two_micro_batches_are_in_the_second_range() -> None:
    """So ranges have no gaps, and a range has the same first offset at the next owner."""
    partition = partition_of(rows=5)
    partition.add(records_at(range(5)), 0.0, 8)
    [first] = partition.cut(0.0)
    partition.add(records_at(range(8, 13)), 0.0, 14)
    [second] = partition.cut(0.0)
    assert ranges_of([first, second]) == [(0, 4), (5, 12)]
    second.ack()
    first.ack()
    assert partition.state == State(14, ())


def test_a_committed_range_whose_records_are_all_aborted_is_done() -> None:
    """A worker that read open transactions committed such ranges; the successor doesn't wait for their records."""
    partition = partition_of(offset=10, ends=(19, 29))
    partition.add([], 0.0, 15)
    assert cut(partition) == []
    assert partition.state == State(10, (19, 29))
    partition.add(records_at([21, 24]), 0.0, 33)
    assert cut(partition, hurry=True) == [[21, 24]]
    assert partition.state == State(20, (29,))


def test_a_committed_range_ends_where_no_record_is_left() -> None:
    """Nothing follows the aborted record at its end; its other records are cut, and the offset reaches the end."""
    partition = partition_of(offset=10, ends=(19,))
    partition.add(records_at([10, 12]), 0.0, 19)
    assert cut(partition, hurry=True) == [], "one offset of the range is still open"
    partition.add([], 0.0, 20)
    [batch] = partition.cut(0.0)
    assert batch.token == "id/7/10-19"
    batch.ack()
    assert partition.state == State(20, ())


def test_a_replay_ends_though_no_record_follows() -> None:
    """The records before the committed offset come again; markers are all that follows them."""
    partition = partition_of(offset=10, start=4)
    partition.add(records_at([4, 6]), 0.0, 9)
    assert cut(partition, hurry=True) == [[4, 6]]
    assert partition.replaying
    partition.add([], 0.0, 12)
    assert not partition.replaying


def test_a_closing_by_the_clock_stands_behind_them() -> None:
    """It stands at the offset at which the next record may come."""
    partition = partition_of()
    partition.add([], 0.0, 6)
    assert partition.with_closing(Closing(5, 100)) is None
    assert partition.with_closing(Closing(6, 100)) == State(6, (), (Closing(6, 100),))


def test_a_fetch_without_a_record_is_committed() -> None:
    """Nothing is delivered, nothing counts as lost, and no request asks why."""
    broker = FakeBroker(commits={TP: committed(3)}, ends={TP: 9})
    broker.produce(0)

    async def scenario() -> None:
        worker = Worker(broker)
        lost = metrics.RECORDS_LOST.labels("events")._value.get()
        await worker.assign()
        asked = broker.requests.count("earliest_offsets")
        assert await worker.fetch() == []
        assert await worker.member.commits.commit()
        assert broker.commits == {TP: committed(9)}
        assert broker.requests.count("earliest_offsets") == asked
        assert metrics.RECORDS_LOST.labels("events")._value.get() == lost

    asyncio.run(scenario())


def test_deleted_records_are_reported_though_no_record_follows(caplog: pytest.LogCaptureFixture) -> None:
    """Retention deletes what isn't consumed yet, and only a marker is left: the offset doesn't pass in silence."""
    broker = FakeBroker(commits={TP: committed(3)})
    broker.produce(20)
    broker.ends[TP] = 21

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        broker.delete_before(20)
        assert await worker.fetch() == []
        await worker.member.commits.commit()

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert "17 records are lost: offsets 3 to 19" in caplog.text
    assert broker.commits == {TP: committed(21)}


def test_the_clock_closes_nothing_while_a_transaction_is_open() -> None:
    """Its events would be late when it is committed; a partition with an open transaction isn't idle."""
    broker = FakeBroker(stable={TP: 5})
    broker.produce(8)

    async def scenario() -> None:
        worker = Worker(broker, deriver=FakeDeriver())
        await worker.assign()
        [batch] = await worker.fetch()
        batch.ack()
        batch.ack()
        assert not await worker.member.commits.close_by_clock(TP, 5, 100)
        del broker.stable[TP]
        [batch] = await worker.fetch()
        assert (batch.first, batch.last) == (5, 7)
        batch.ack()
        batch.ack()
        assert await worker.member.commits.close_by_clock(TP, 8, 100)

    asyncio.run(scenario())
