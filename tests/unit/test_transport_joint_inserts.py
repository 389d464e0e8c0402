"""Names of joint inserts beside committed offsets, with a broker in memory that refuses, or doesn't answer."""

import asyncio

from support.fake_broker import ID, TP, FakeBroker, FakeDeriver, Worker, committed

from pipeline.errors import UnavailableError
from pipeline.transport.broker import Commit, Membership
from pipeline.transport.commit_metadata import JointInsert, Ranges
from pipeline.transport.partition import PartitionBatches

_JOINT = JointInsert("9f86d081884c7d65", 496_812)
_OTHER = TP._replace(partition=1)


def _joint(offset: int, *ends: int, joint_insert: JointInsert = _JOINT) -> Commit:
    return Commit(offset, str(Ranges(ID, ends, (), joint_insert)))


def _broker() -> FakeBroker:
    broker = FakeBroker(commits={TP: committed(0)})
    broker.produce(10)
    return broker


async def _at_rest(broker: FakeBroker) -> Worker:
    """A worker that has acknowledged and committed all records."""
    worker = Worker(broker, deriver=FakeDeriver())
    await worker.assign()
    for batch in await worker.fetch():
        batch.ack()
        batch.ack()
    await worker.member.commits.commit()
    return worker


async def _two_at_rest(broker: FakeBroker) -> tuple[Worker, list[PartitionBatches]]:
    """A worker that has processed all records of two partitions."""
    broker.produce(10, _OTHER)
    broker.commits[_OTHER] = committed(0)
    worker = await _at_rest(broker)
    return worker, [worker.member.assignment.partitions[tp] for tp in (TP, _OTHER)]


def test_the_name_of_a_joint_insert_is_committed_for_all_its_partitions() -> None:
    """One request has it, later commits keep it, and the next owner reads it, until a commit says that it is gone."""
    broker = _broker()

    async def scenario() -> None:
        worker, held = await _two_at_rest(broker)
        later = JointInsert(_JOINT.name, 496_813)
        names: dict[PartitionBatches, JointInsert | None] = {held[0]: _JOINT, held[1]: later}
        for _ in range(2):  # what is so already needs no request
            requests = broker.requests.count("commit")
            assert await worker.member.commits.name_joint_insert(names)
        assert broker.requests.count("commit") == requests
        assert broker.commits == {TP: _joint(10), _OTHER: _joint(10, joint_insert=later)}
        broker.produce(5)
        await worker.fetch()
        assert broker.commits[TP] == _joint(10, 14)
        next_owner = Worker(broker, deriver=FakeDeriver())
        await next_owner.assign()
        partitions = next_owner.member.assignment.partitions
        assert {tp: partition.joint_insert for tp, partition in partitions.items()} == {TP: _JOINT, _OTHER: later}
        assert partitions[TP].is_named(_JOINT)
        assert await next_owner.member.commits.name_joint_insert({partitions[_OTHER]: None})
        assert broker.commits == {TP: _joint(10, 14), _OTHER: committed(10)}

    asyncio.run(scenario())


def test_a_joint_insert_begins_when_the_broker_has_answered() -> None:
    """Without an answer it may be committed or not; a refusal means that it doesn't begin."""
    broker = _broker()

    async def scenario() -> None:
        worker, held = await _two_at_rest(broker)
        broker.fail("commit", times=3)
        assert await worker.member.commits.name_joint_insert({held[0]: _JOINT})
        assert broker.commits[TP] == _joint(10)
        broker.known = Membership(2, "another")
        assert not await worker.member.commits.name_joint_insert({held[0]: None})
        assert not await worker.member.commits.name_joint_insert({held[0]: _JOINT}), "not held any more"
        assert broker.commits[TP] == _joint(10)

    asyncio.run(scenario())


def test_a_name_is_certain_for_the_partitions_that_are_left() -> None:
    """One is let go while the broker doesn't answer; the others may have the name, and do after the next answer."""
    broker = _broker()

    async def scenario() -> None:
        worker, (left, lost) = await _two_at_rest(broker)
        failures = iter([UnavailableError("no answer")])

        def lose() -> None:
            worker.member.assignment.let_go({_OTHER})
            for failure in failures:
                raise failure

        broker.hooks["commit"] = lose
        assert not await worker.member.commits.name_joint_insert({left: _JOINT, lost: _JOINT})
        assert (left.live, left.is_named(_JOINT)) == (True, True)
        assert broker.commits == {TP: _joint(10), _OTHER: committed(10)}

    asyncio.run(scenario())


def test_a_name_is_uncertain_while_a_commit_has_no_answer() -> None:
    """The broker may have taken it already, and the next owner may read it."""
    broker = _broker()

    async def scenario() -> None:
        worker, (held, _) = await _two_at_rest(broker)
        answered = asyncio.Event()
        broker.hooks["commit"] = answered.wait
        assert held.is_named(None)
        naming = asyncio.create_task(worker.member.commits.name_joint_insert({held: _JOINT}))
        await broker.until_requested("commit", broker.requests.count("commit") + 1)
        assert not any(map(held.is_named, (None, _JOINT)))
        held.joint_insert = None  # whatever is wanted by now
        assert not held.is_named(None)
        held.joint_insert = _JOINT
        answered.set()
        assert await naming
        assert held.is_named(_JOINT)

    asyncio.run(scenario())


def test_an_old_assignment_names_nothing_in_a_new_one() -> None:
    """A task that was frozen goes on after the partition has come back, with another name."""
    broker = _broker()

    async def scenario() -> None:
        worker, (old, _) = await _two_at_rest(broker)
        await worker.assign()
        new = worker.member.assignment.partitions[TP]
        assert await worker.member.commits.name_joint_insert({new: _JOINT})
        assert not await worker.member.commits.name_joint_insert({old: None})
        assert new.is_named(_JOINT)
        assert broker.commits[TP] == _joint(10)

    asyncio.run(scenario())
