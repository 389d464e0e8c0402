"""Closings by the clock and releases of partitions, on a real broker."""

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from multiprocessing import get_context

import pytest
from support.derived import (
    Derived,
    close,
    close_in_the_end,
    derived_options,
    deriving_member,
    taken_over,
)
from support.faust_member import Member, numbers, until
from support.kafka_topic import Topic
from support.processes import PATIENCE_SECONDS

from pipeline.config import KafkaSettings
from pipeline.devstack import Stack
from pipeline.errors import UnavailableError
from pipeline.transport.broker import TopicPartition
from pipeline.transport.commit_metadata import Closing, Ranges
from pipeline.transport.deriver import Takeover

pytestmark = pytest.mark.integration


def test_closings_are_committed_and_forgotten(kafka: KafkaSettings, topic: Topic) -> None:
    """Metadata goes from version 1 to version 2 and back; the next owner gets the closings that are still needed."""
    topic.produce(numbers(20))
    topic.commit(10, str(Ranges("-", (19,))))
    former, derived = Derived(topic.name), Derived(topic.name)

    async def scenario() -> None:
        async with deriving_member(kafka, former) as member:
            await member.take_records(10)
            await close_in_the_end(member, topic.name, 20, 500_000)
            closed = Ranges("-", (), (Closing(20, 500_000),))
            assert await asyncio.to_thread(topic.read_commit) == (20, str(closed))
            await asyncio.to_thread(topic.produce, numbers(5))
            await member.take_records(5)
            await close_in_the_end(member, topic.name, 25, 500_001)
            await close_in_the_end(member, topic.name, 25, 500_002)
        both = (Closing(20, 500_000), Closing(25, 500_002))
        assert await asyncio.to_thread(topic.read_commit) == (25, str(Ranges("-", (), both)))
        async with deriving_member(kafka, derived) as member:
            await taken_over(member, topic.name)
            assert derived.taken == [Takeover("-", 0, 25, both, 25)]
            for before, left in ((25, both[1:]), (26, ())):
                member.app.consumer.forget_closings(TopicPartition(topic.name, 0), before)
                await member.app.commit(None)
                assert await asyncio.to_thread(topic.read_commit) == (25, str(Ranges("-", (), left)))

    asyncio.run(scenario())


def test_nothing_is_closed_while_records_come(kafka: KafkaSettings, topic: Topic) -> None:
    """A micro-batch in flight, more records in the log, another offset, or a foreign partition prevents the closing."""
    topic.produce(numbers(10))
    derived = Derived(topic.name)
    place = TopicPartition(topic.name, 0)

    async def scenario() -> None:
        async with deriving_member(kafka, derived) as member:
            [batch] = await member.take()
            assert not await close(member, topic.name, 10, 5)
            batch.ack()
            await until(lambda: topic.committed == {0: 10}, "committed")
            assert not await close(member, topic.name, 9, 5)
            assert not await member.app.consumer.close_by_clock(TopicPartition(topic.name, 1), 0, 5)
            member.app.consumer.pause_partitions({place})
            assert await member.idle_for(1.2), "Faust's poll of a second that was under way is over"
            await asyncio.to_thread(topic.produce, numbers(1))
            assert not await close(member, topic.name, 10, 5)
            assert (await asyncio.to_thread(topic.read_commit)) == (10, str(Ranges("-")))

    asyncio.run(scenario())


@pytest.mark.parametrize("again", [True, False], ids=["asked-again", "gone-on"])
def test_a_closing_whose_answer_does_not_come_is_decided_by_the_next_commit(
    kafka: KafkaSettings, topic: Topic, stack: Stack, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    """A second attempt commits it; without one, the commit before the next delivery leaves it out."""
    topic.produce(numbers(10))
    derived = Derived(topic.name)

    async def scenario() -> None:
        async with deriving_member(kafka, derived, answer_seconds=1.0) as member:
            await member.take_records(10)
            await until(lambda: topic.committed == {0: 10}, "committed")
            broker = member.app.consumer.member.broker
            commit = broker.commit

            async def pause_first(*arguments: object) -> bool:
                stack.kafka.pause()
                taken: bool = await commit(*arguments)
                return taken

            monkeypatch.setattr(broker, "commit", pause_first)
            with pytest.raises(UnavailableError):
                await close(member, topic.name, 10, 5)
            monkeypatch.undo()
            stack.kafka.resume()
            await asyncio.to_thread(topic.read_commit)  # the broker answers again
            if again:
                await close_in_the_end(member, topic.name, 10, 5)
                assert (await asyncio.to_thread(topic.read_commit)) == (10, str(Ranges("-", (), (Closing(10, 5),))))
            await asyncio.to_thread(topic.produce, numbers(10))
            await member.take()
            closings = (Closing(10, 5),) if again else ()
            assert (await asyncio.to_thread(topic.read_commit)) == (10, str(Ranges("-", (19,), closings)))

    asyncio.run(scenario())


def test_a_member_that_slept_too_long_closes_nothing_and_releases_nothing(kafka: KafkaSettings, topic: Topic) -> None:
    """As after SIGSTOP, the broker doesn't know it any more, so its closing is refused."""
    topic.produce(numbers(10))
    late, derived = Derived(topic.name), Derived(topic.name)

    async def scenario() -> None:
        async with AsyncExitStack() as first:
            sleeper = await first.enter_async_context(deriving_member(kafka, late, answer_seconds=20.0))
            await sleeper.take_records(10)
            await until(lambda: topic.committed == {0: 10}, "committed")
            held = sleeper.app.consumer.held(TopicPartition(topic.name, 0))
            sleeper.app.consumer._thread.thread_loop.call_soon_threadsafe(time.sleep, 15.0)  # no heartbeats
            async with deriving_member(kafka, derived) as owner:
                await taken_over(owner, topic.name)
                assert held.live, "it doesn't know yet"
                assert not await close(sleeper, topic.name, 10, 5)
                assert not held.live
                assert late.released == []
                await first.aclose()  # it is in the group again, and may have the partition
                await close_in_the_end(owner, topic.name, 10, 7)

    asyncio.run(scenario())


def _close_and_die(kafka: KafkaSettings, topic: str) -> None:
    """Run a member that is killed as soon as its closing is committed."""

    async def scenario() -> None:
        async with deriving_member(kafka, Derived(topic)) as member:
            await member.take_records(10)
            await close_in_the_end(member, topic, 10, 5)
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(scenario())


def test_a_closing_survives_a_kill(kafka: KafkaSettings, topic: Topic) -> None:
    """The next owner gets a closing that was committed."""
    topic.produce(numbers(10))
    victim = get_context("spawn").Process(target=_close_and_die, args=(kafka, topic.name))
    victim.start()
    victim.join(PATIENCE_SECONDS)
    assert victim.exitcode == -signal.SIGKILL
    derived = Derived(topic.name)

    async def scenario() -> None:
        async with deriving_member(kafka, derived) as member:
            await taken_over(member, topic.name)

    asyncio.run(scenario())
    assert derived.taken == [Takeover("-", 0, 10, (Closing(10, 5),), 10)]


def test_a_deriver_releases_partitions_that_are_still_ours(kafka: KafkaSettings) -> None:
    """In a rebalance and in a stop it releases after the commit, and takes over the partitions assigned then."""
    topic = Topic(kafka, partitions=2)
    topic.produce(numbers(10))
    both = {TopicPartition(topic.name, 0), TopicPartition(topic.name, 1)}
    committed: list[int] = []

    class Releasing(Derived):
        async def release(self, partitions: set[TopicPartition]) -> None:
            assert all(member.app.consumer.held(tp) for tp in partitions)
            committed.append((await asyncio.to_thread(lambda: topic.committed))[0])
            await super().release(partitions)

    derived = Releasing(topic.name)
    member = Member(kafka, derived_options(derived), derive=derived.get, broker_commit_interval=60.0)

    async def scenario() -> None:
        async with member:
            await member.take_records(10)
            async with deriving_member(kafka, Derived(topic.name)) as other:
                await until(lambda: member.partitions == other.partitions == 1, "shared")
                assert derived.released == [both]
                kept = set(member.app.consumer.assignment())
        assert derived.released[1] in ({*kept}, both)  # the rest has come back, or not yet

    asyncio.run(scenario())
    assert committed[0] == 10
    assert len(derived.taken) >= 3


@pytest.mark.parametrize("fault", ["hangs", "fails"])
def test_a_stop_does_not_wait_for_a_release_longer_than_it_drains(
    kafka: KafkaSettings, topic: Topic, fault: str
) -> None:
    """A failed release costs a replay; finished micro-batches are committed all the same."""
    topic.produce(numbers(10))

    class Slow(Derived):
        async def release(self, partitions: set[TopicPartition]) -> None:
            await super().release(partitions)
            if fault == "fails":
                raise RuntimeError
            await asyncio.sleep(PATIENCE_SECONDS)

    derived = Slow(topic.name)

    async def scenario() -> float:
        async with deriving_member(kafka, derived, drain_seconds=1.0) as member:
            await member.take_records(10)
            began = time.monotonic()
        return time.monotonic() - began

    assert asyncio.run(scenario()) < 7  # by default, it drains for eight seconds
    assert len(derived.released) == 1
    assert topic.committed == {0: 10}
