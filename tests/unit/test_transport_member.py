"""Order of the steps of a revocation, an assignment and a stop, with a broker in memory."""

import asyncio
from typing import Any

from support.fake_broker import TP, FakeBroker, FakeDeriver, Worker, committed

from pipeline.transport.broker import Membership, TopicPartition
from pipeline.transport.micro_batch import MicroBatch


class Steps(FakeDeriver):
    """Deriver that notes each step, and whether the worker holds the partition at that step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, bool]] = []
        self.worker: Worker

    def note(self, step: str) -> None:
        """Note a step."""
        self.steps.append((step, TP in self.worker.held))

    async def release(self, partitions: set[TopicPartition]) -> None:
        """Note that the deriver releases partitions."""
        self.note("release")
        await super().release(partitions)

    async def drain(self) -> None:
        """Do what Faust does: wait for the agents, then commit."""
        self.note("drain")
        await self.worker.member.release.drain(list)

    async def commit(self) -> bool:
        """Commit."""
        self.note("commit")
        return await self.worker.member.commits.try_commit()


def member_of(broker: FakeBroker, **options: Any) -> tuple[Worker, Steps]:
    """Return a worker on this broker, and the steps that it takes."""
    steps = Steps()
    steps.worker = Worker(broker, deriver=steps, **options)
    return steps.worker, steps


async def acknowledged(worker: Worker) -> list[MicroBatch]:
    """Assign all partitions, and acknowledge all micro-batches, for both agents."""
    await worker.assign()
    batches = await worker.fetch()
    for batch in batches:
        batch.ack()
        batch.ack()
    return batches


def test_a_revoked_partition_is_committed_and_released_before_it_is_let_go() -> None:
    """A commit or a release after the partition was let go would disturb the next owner."""
    broker = FakeBroker()
    broker.produce(10)

    async def scenario() -> None:
        worker, steps = member_of(broker)
        [batch] = await acknowledged(worker)
        await worker.member.revoke({TP}, steps.drain, steps.commit)
        assert steps.steps == [("drain", True), ("commit", True), ("release", True)]
        assert (worker.held, batch.live) == (set(), False)
        assert broker.commits == {TP: committed(10)}

    asyncio.run(scenario())


def test_a_revocation_lets_only_its_own_partitions_go() -> None:
    """Each other partition is still held and committed."""
    other = TopicPartition("events", 1)
    broker = FakeBroker()
    broker.produce(10)
    broker.produce(10, other)

    async def scenario() -> None:
        worker, steps = member_of(broker)
        await worker.assign()
        await worker.member.revoke({other}, steps.drain, steps.commit)
        assert worker.held == {TP}
        assert steps.released == [{other}]

    asyncio.run(scenario())


def test_each_revocation_has_its_own_time_to_drain() -> None:
    """The time of the revocation before doesn't count, also if no assignment came in between."""
    other = TopicPartition("events", 1)
    broker = FakeBroker()
    broker.produce(10)
    broker.produce(0, other)

    async def scenario() -> None:
        worker, steps = member_of(broker, drain_seconds=60.0)
        await worker.assign()
        await worker.member.revoke({other}, steps.drain, steps.commit)
        worker.now += 61
        taken = await worker.fetch()

        async def drain() -> None:
            asyncio.get_running_loop().call_soon(lambda: taken.pop().ack())
            assert await worker.member.release.drain(lambda: taken) == []

        await worker.member.revoke({TP}, drain, steps.commit)

    asyncio.run(scenario())


def test_an_assignment_stops_delivery_before_it_acts_as_the_new_member() -> None:
    """A micro-batch that is delivered in between would be of the member before."""
    broker = FakeBroker()
    broker.produce(10)

    async def scenario() -> None:
        worker, _ = member_of(broker)
        await worker.assign()
        before, after = broker.membership, Membership(2, "member")
        broker.membership = after
        seen = []
        worker.flow.on_stop = lambda: seen.append((worker.member.assignment.membership, worker.held))

        async def prepare() -> None:
            assert not worker.flow.flow_active
            seen.append((worker.member.assignment.membership, worker.held))

        await worker.member.assign(prepare)
        assert seen == [(before, {TP}), (after, set())]

    asyncio.run(scenario())


def test_a_stop_commits_and_releases_before_all_partitions_are_let_go() -> None:
    """The next owner starts at this commit, and replays no more than it needs."""
    other = TopicPartition("events", 1)
    broker = FakeBroker()
    broker.produce(10)
    broker.produce(10, other)

    async def scenario() -> None:
        worker, steps = member_of(broker)
        await acknowledged(worker)

        async def drain() -> None:
            await steps.drain()
            await steps.commit()

        await worker.member.stop(drain)
        assert steps.steps == [("drain", True), ("commit", True), ("release", True)]
        assert steps.released == [{TP, other}]
        assert worker.held == set()
        assert broker.commits == {TP: committed(10), other: committed(10)}

    asyncio.run(scenario())
