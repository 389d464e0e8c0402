"""Commits of states and closings, with a broker in memory that refuses, doesn't answer, or answers late."""

import asyncio

import pytest
from support.fake_broker import TP, FakeBroker, FakeDeriver, Worker, committed, ranges_of
from support.records import parts_of

from pipeline.errors import HaltError, UnavailableError
from pipeline.transport.broker import Membership
from pipeline.transport.commit_metadata import Closing


def _broker(records: int = 10) -> FakeBroker:
    broker = FakeBroker(commits={TP: committed(0)})
    broker.produce(records)
    return broker


def test_a_range_is_committed_before_it_is_delivered() -> None:
    """The receiver of a micro-batch finds its range beside the committed offset."""
    broker = _broker()

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        assert ranges_of(await worker.fetch()) == [(0, 9)]
        assert broker.commits == {TP: committed(0, 9)}
        assert worker.committed == [{TP: 0}]

    asyncio.run(scenario())


def test_a_refused_commit_delivers_nothing_and_lets_the_partitions_go() -> None:
    """The broker knows another member by now; the next owner cuts its own ranges."""
    broker = _broker()

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        broker.known = Membership(2, "another")
        assert await worker.fetch() == []
        assert (worker.held, broker.commits, worker.failures) == (set(), {TP: committed(0)}, [])

    asyncio.run(scenario())


def test_a_commit_is_made_as_the_member_of_the_assignment() -> None:
    """A membership that is newer than the assignment doesn't count: its partitions are to be assigned yet."""
    broker = _broker()

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        broker.membership = Membership(2, "member")
        assert await worker.fetch() == []
        assert broker.commits == {TP: committed(0)}

    asyncio.run(scenario())


def test_micro_batches_wait_until_the_broker_answers() -> None:
    """The range is committed again and again, and delivered after the first answer."""
    broker = _broker()
    broker.fail("commit", times=3)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        assert ranges_of(await worker.fetch()) == [(0, 9)]

    asyncio.run(scenario())
    assert broker.requests.count("commit") == 4


def test_a_rebalance_ends_the_wait_for_an_answer() -> None:
    """Nothing is delivered that was cut before it."""
    broker = _broker()

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        broker.fail("commit", times=1000)
        fetching = asyncio.create_task(worker.fetch())
        await broker.until_requested("commit", 3)
        worker.flow.flow_active = False
        assert await fetching == []

    asyncio.run(scenario())


def test_commits_follow_each_other() -> None:
    """A later commit holds a later state, however late the broker answers the earlier one."""
    broker = _broker(20)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        first, second = await worker.fetch()
        answered = asyncio.Event()
        broker.hooks["commit"] = answered.wait
        first.ack()
        earlier = asyncio.create_task(worker.member.commits.commit())
        await asyncio.sleep(0)
        second.ack()
        later = asyncio.create_task(worker.member.commits.commit())
        for _ in range(10):
            await asyncio.sleep(0)
        assert broker.requests.count("commit") == 2, "the delivery's and the earlier one"
        answered.set()
        assert await earlier
        assert await later
        assert broker.commits == {TP: committed(20)}

    asyncio.run(scenario())


def test_a_cancelled_commit_is_made_again() -> None:
    """Without an answer, a state counts as not committed; the lock is free for the next commit."""
    broker = _broker()

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        [batch] = await worker.fetch()
        batch.ack()
        broker.hooks["commit"] = asyncio.Event().wait
        commit = asyncio.create_task(worker.member.commits.commit())
        for _ in range(5):
            await asyncio.sleep(0)
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit
        broker.hooks.clear()
        assert await worker.member.commits.commit()
        assert broker.commits == {TP: committed(10)}
        assert not await worker.member.commits.commit(), "nothing has changed"

    asyncio.run(scenario())


def test_a_failed_commit_is_made_again() -> None:
    """The commit in the background logs a failure, or halts if an ACL is missing."""
    broker = _broker()

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        [batch] = await worker.fetch()
        batch.ack()
        broker.fail("commit")
        assert not await worker.member.commits.try_commit()
        broker.fail("commit", error=HaltError("no ACL"))
        assert not await worker.member.commits.try_commit()
        assert [str(failure) for failure in worker.failures] == ["no ACL"]
        assert await worker.member.commits.try_commit()
        assert broker.commits == {TP: committed(10)}

    asyncio.run(scenario())


@pytest.mark.parametrize("owned", [True, False])
def test_a_lease_is_renewed_by_a_commit(*, owned: bool) -> None:
    """The same state is committed again, until the broker answers; a refusal means that the partition is lost."""
    broker = _broker()

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        [batch] = await worker.fetch()
        before = batch.committed_at
        broker.fail("commit", times=2)
        if not owned:
            broker.known = Membership(2, "another")
        assert await worker.member.commits.renew(batch) is owned
        assert batch.live is owned
        assert (batch.committed_at > before) is owned

    asyncio.run(scenario())


# Closings.


async def _at_rest(broker: FakeBroker) -> Worker:
    """A worker that has acknowledged and committed all records."""
    worker = Worker(broker, deriver=FakeDeriver())
    await worker.assign()
    for batch in await worker.fetch():
        batch.ack()
        batch.ack()
    await worker.member.commits.commit()
    return worker


def test_a_closing_is_committed_beside_the_offset() -> None:
    """It stays there until it is forgotten."""
    broker = _broker()

    async def scenario() -> None:
        worker = await _at_rest(broker)
        assert await worker.member.commits.close_by_clock(TP, 10, 100)
        assert broker.commits == {TP: committed(10, closings=(Closing(10, 100),))}
        worker.member.commits.forget_closings(TP, 11)
        assert await worker.member.commits.commit()
        assert broker.commits == {TP: committed(10)}

    asyncio.run(scenario())


def test_nothing_is_closed_while_the_log_goes_on() -> None:
    """Records that aren't fetched yet, another offset, or a micro-batch in flight: no closing, and no commit."""
    broker = _broker()

    async def scenario() -> None:
        worker = await _at_rest(broker)
        close = worker.member.commits.close_by_clock
        assert not await close(TP, 9, 100)
        assert not await close(TP._replace(partition=1), 10, 100)
        broker.produce(1)
        assert not await close(TP, 10, 100)
        await worker.fetch()
        assert not await close(TP, 11, 100)
        assert broker.commits == {TP: committed(10, 10)}

    asyncio.run(scenario())


def test_a_closing_is_not_decided_if_records_arrive_while_another_commit_is_under_way() -> None:
    """The state is looked at again under the lock."""
    broker = _broker()

    async def scenario() -> None:
        worker = await _at_rest(broker)
        held = worker.member.assignment.partitions
        broker.hooks["at_the_end"] = lambda: held[TP].add(parts_of(broker.logs[TP][-1:]), 0.0)
        broker.produce(1)
        broker.positions[TP] = 11
        assert not await worker.member.commits.close_by_clock(TP, 10, 100)
        assert broker.commits == {TP: committed(10)}

    asyncio.run(scenario())


def test_a_closing_without_an_answer_is_left_out_of_the_next_commit() -> None:
    """The broker may have taken it; before any record is delivered, another commit says that it doesn't count."""
    broker = _broker()

    async def scenario() -> None:
        worker = await _at_rest(broker)
        commit = broker.commit

        async def taken_without_an_answer(membership: Membership, commits: object) -> bool:
            await commit(membership, commits)  # type: ignore[arg-type] # passed on
            raise UnavailableError("no answer")

        broker.commit = taken_without_an_answer  # type: ignore[method-assign]
        with pytest.raises(UnavailableError):
            await worker.member.commits.close_by_clock(TP, 10, 100)
        assert broker.commits == {TP: committed(10, closings=(Closing(10, 100),))}
        broker.commit = commit  # type: ignore[method-assign]
        broker.produce(5)
        await worker.fetch()
        assert broker.commits == {TP: committed(10, 14)}

    asyncio.run(scenario())


def test_a_refused_closing_is_not_decided() -> None:
    """The partition is let go; its next owner needn't know of the closing."""
    broker = _broker()

    async def scenario() -> None:
        worker = await _at_rest(broker)
        broker.known = Membership(2, "another")
        assert not await worker.member.commits.close_by_clock(TP, 10, 100)
        assert (worker.held, broker.commits) == (set(), {TP: committed(10)})

    asyncio.run(scenario())


def test_a_closing_that_was_committed_while_the_partition_was_let_go_is_for_the_next_owner() -> None:
    """This worker doesn't apply it, whatever the broker answered."""
    broker = _broker()

    async def scenario() -> None:
        worker = await _at_rest(broker)
        broker.hooks["commit"] = lambda: worker.member.assignment.let_go({TP})
        assert not await worker.member.commits.close_by_clock(TP, 10, 100)
        assert broker.commits == {TP: committed(10, closings=(Closing(10, 100),))}

    asyncio.run(scenario())
