"""Assignment, takeover and revocation of partitions, with a broker in memory."""

import asyncio

import pytest
from support.fake_broker import ID, TP, FakeBroker, FakeDeriver, Worker, committed, ranges_of

from pipeline.errors import HaltError
from pipeline.transport.broker import Commit, Membership, TopicPartition
from pipeline.transport.commit_metadata import Closing
from pipeline.transport.deriver import Takeover
from pipeline.transport.micro_batch import State


def test_a_new_group_starts_at_the_beginning_of_the_log() -> None:
    """Without a commit, nothing is in flight, and the first record is the first that retention has left."""
    broker = FakeBroker()
    broker.produce(30)
    broker.delete_before(5)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        assert broker.positions == {TP: 5}
        assert ranges_of(await worker.fetch()) == [(5, 14), (15, 24)]

    asyncio.run(scenario())


def test_committed_ranges_are_cut_again_before_any_new_one() -> None:
    """The next owner cuts the same ranges under the same tokens, whatever its own policy is."""
    broker = FakeBroker(commits={TP: committed(10, 12, 29)})
    broker.produce(50)

    async def scenario() -> None:
        worker = Worker(broker, rows=4, batches_in_flight=4)
        await worker.assign()
        batches = await worker.fetch()
        assert ranges_of(batches) == [(10, 12), (13, 29), (30, 33), (34, 37)]
        assert [batch.again for batch in batches] == [True, True, False, False]
        assert batches[0].token == f"{ID}/0/10-12"
        assert broker.commits == {TP: committed(10, 12, 29, 33, 37)}

    asyncio.run(scenario())


def test_each_partition_starts_where_its_own_commit_says() -> None:
    """One takeover reads all commits at once."""
    other = TopicPartition("events", 1)
    broker = FakeBroker(commits={TP: committed(3), other: committed(7, 8)})
    broker.produce(10)
    broker.produce(10, other)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        assert worker.held == {TP, other}
        assert ranges_of(await worker.fetch()) == [(3, 9), (7, 8), (9, 9)]

    asyncio.run(scenario())
    assert broker.requests.count("read_commits") == 1


@pytest.mark.parametrize(
    ("commit", "message"),
    [
        pytest.param(Commit(5, f"1 {ID} 9 00000000"), "damaged metadata", id="damaged"),
        pytest.param(Commit(5, "9 later"), "metadata of version '9', expected 1, 2 or 3", id="unknown-version"),
    ],
)
def test_unreadable_metadata_halts(commit: Commit, message: str) -> None:
    """The message names group and partition; nothing is held, so nothing is fetched or committed."""
    broker = FakeBroker(commits={TP: commit})
    broker.produce(10)

    async def scenario() -> Worker:
        worker = Worker(broker)
        await worker.assign()
        return worker

    worker = asyncio.run(scenario())
    assert worker.held == set()
    [failure] = worker.failures
    assert isinstance(failure, HaltError)
    assert str(failure).startswith(f"group group, events-0: {message}")


def test_a_commit_of_an_earlier_topic_of_the_same_name_does_not_count() -> None:
    """The topic is consumed from its beginning, and no token of the earlier topic is used."""
    broker = FakeBroker(commits={TP: committed(5, 9, topic_id="earlier")})
    broker.produce(10)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        [batch] = await worker.fetch()
        assert batch.token == f"{ID}/0/0-9"

    asyncio.run(scenario())


@pytest.mark.parametrize("request_name", ["topic_ids", "earliest_offsets", "read_commits", "seek", "seek_to_committed"])
def test_a_takeover_without_an_answer_is_assigned_anew(request_name: str) -> None:
    """Nothing is held until another assignment succeeds."""
    broker = FakeBroker(commits={TP: committed(4)})
    broker.produce(10)
    broker.fail(request_name)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        assert (worker.held, broker.rejoins, worker.failures) == (set(), 1, [])
        await worker.assign()
        assert ranges_of(await worker.fetch()) == [(4, 9)]

    asyncio.run(scenario())


def test_the_seek_to_the_committed_offsets_comes_before_all_else() -> None:
    """One that is still under way when a request fails would undo the seeks of the next takeover."""
    broker = FakeBroker(commits={TP: committed(4)})
    broker.produce(10)

    async def answer() -> None:
        await asyncio.sleep(0)
        asked_meanwhile.extend(broker.requests)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.member.assign(lambda: worker.member.take_over(answer))

    asked_meanwhile: list[str] = []
    asyncio.run(scenario())
    assert (asked_meanwhile, "read_commits" in broker.requests) == ([], True)


@pytest.mark.parametrize("request_name", ["read_commits", "seek"])
def test_a_later_assignment_overtakes_a_takeover(request_name: str) -> None:
    """The earlier takeover holds nothing: its commits may be older than those of another owner in between."""
    broker = FakeBroker(commits={TP: committed(4)})
    broker.produce(10)

    async def scenario() -> None:
        worker = Worker(broker)
        broker.hooks[request_name] = lambda: worker.member.assignment.begin(Membership(2, "member"))
        await worker.assign()
        assert worker.held == set()

    asyncio.run(scenario())


def test_a_takeover_reads_commits_after_the_commit_that_is_under_way() -> None:
    """A commit of this worker that the broker takes later would be missing in what is read."""
    broker = FakeBroker(commits={TP: committed(0)})
    broker.produce(20)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        answered = asyncio.Event()
        broker.hooks["commit"] = answered.wait
        fetching = asyncio.create_task(worker.fetch())
        await broker.until_requested("commit")
        assigning = asyncio.create_task(worker.assign())
        for _ in range(20):
            await asyncio.sleep(0)
        assert broker.requests.count("read_commits") == 1, "the second takeover waits"
        answered.set()
        assert await fetching == []
        await assigning
        assert worker.member.assignment.partitions[TP].state == State(0, (9, 19))

    asyncio.run(scenario())


def test_a_revoked_partition_is_given_up_after_its_release() -> None:
    """The deriver releases it while this worker still owns it; then nothing of it counts any more."""
    broker = FakeBroker()
    broker.produce(10)
    deriver = FakeDeriver()

    async def scenario() -> None:
        worker = Worker(broker, deriver=deriver)
        await worker.assign()
        [batch] = await worker.fetch()
        worker.member.release.begin()
        assert await worker.member.release.drain(lambda: [batch]) == [batch]
        await worker.member.release.let_go({TP})
        assert deriver.released == [{TP}]
        assert (worker.held, batch.live) == (set(), False)
        batch.ack()
        batch.ack()
        assert not await worker.member.commits.commit()
        assert broker.commits == {TP: committed(0, 9)}

    asyncio.run(scenario())


def test_a_drain_ends_when_all_is_acknowledged() -> None:
    """It doesn't use up its time."""
    broker = FakeBroker()
    broker.produce(10)

    async def scenario() -> None:
        worker = Worker(broker, drain_seconds=60.0)
        await worker.assign()
        taken = await worker.fetch()
        asyncio.get_running_loop().call_later(0.01, lambda: taken.pop().ack())
        worker.member.release.begin()
        assert await worker.member.release.drain(lambda: taken) == []
        assert await worker.member.commits.commit()
        assert broker.commits == {TP: committed(10)}

    asyncio.run(scenario())


def test_a_member_that_is_known_by_another_generation_releases_nothing() -> None:
    """The partitions may have another owner, whose work a release would disturb."""
    broker = FakeBroker()
    broker.produce(10)
    deriver = FakeDeriver()

    async def scenario() -> None:
        worker = Worker(broker, deriver=deriver)
        await worker.assign()
        broker.membership = Membership(2, "member")
        await worker.member.release.let_go_of_all()
        assert (deriver.released, worker.held) == ([], set())

    asyncio.run(scenario())


def test_the_deriver_is_told_of_what_is_committed() -> None:
    """Id and beginning of the log, committed offset, and closings of earlier owners."""
    closings = (Closing(4, 100), Closing(7, 101))
    broker = FakeBroker(commits={TP: committed(7, 9, closings=closings)})
    broker.produce(10)
    broker.delete_before(2)
    deriver = FakeDeriver()

    async def scenario() -> None:
        worker = Worker(broker, deriver=deriver)
        await worker.assign()

    asyncio.run(scenario())
    assert deriver.taken == [Takeover(ID, 2, 7, closings, 10)]


def test_a_topic_that_is_created_anew_is_given_up() -> None:
    """Its records aren't delivered under the earlier topic's tokens; the group assigns it anew."""
    broker = FakeBroker()
    broker.produce(10)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        broker.ids["events"] = "another"
        assert await worker.fetch() == []
        assert (worker.held, broker.rejoins) == (set(), 1)
        await worker.assign()
        [batch] = await worker.fetch()
        assert batch.token == "another/0/0-9"

    asyncio.run(scenario())


def test_assigned_partitions_that_are_not_held_are_assigned_anew() -> None:
    """The check of the topics also looks for topics that were missing for a moment."""
    broker = FakeBroker()
    broker.produce(10)

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.member.topics.check()
        assert (broker.rejoins, broker.noticed) == (1, [{"events"}])
        await worker.assign()
        await worker.member.topics.check()
        assert broker.rejoins == 1
        broker.fail("topic_ids")
        await worker.member.topics.check()
        assert broker.rejoins == 1

    asyncio.run(scenario())
