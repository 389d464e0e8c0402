"""What the batch transport does for a deriver, on a real broker: replay, sharing, closings by the clock, release."""

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from multiprocessing import get_context
from typing import Any

import pytest
from support.faust_member import PATIENCE_SECONDS, Member, numbers, ranges_of, small_batches, until, values_of
from support.kafka_topic import Topic

from pipeline import metrics
from pipeline.config import KafkaSettings
from pipeline.devstack import Stack
from pipeline.errors import ChimeraError, HaltError, UnavailableError
from pipeline.transport.broker import TopicPartition
from pipeline.transport.commit_metadata import Closing, Ranges
from pipeline.transport.deriver import Deriver, Takeover
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.options import TransportOptions

pytestmark = pytest.mark.integration

SESSION_SECONDS = 6.0  # the least that the broker takes


class Derived:
    """Needs partition 0 from an offset, and remembers what it is told and what it gets.

    Args:
        topic: it derives from.
        needed: offset of the first record it needs; without it, what is committed.
        acks: whether its agent acknowledges what it gets.
    """

    def __init__(self, topic: str, needed: int | None = None, *, acks: bool = True) -> None:
        self.topics = frozenset({topic})
        self.taken: list[Takeover] = []
        self.missed_records = 0
        self.released: list[set[TopicPartition]] = []
        self.got: list[MicroBatch] = []
        self._needed = needed
        self._acks = acks

    async def take_over(self, taken: Mapping[TopicPartition, Takeover]) -> Mapping[TopicPartition, int]:
        """Remember, and say what is needed."""
        self.taken += taken.values()
        return {tp: takeover.committed if self._needed is None else self._needed for tp, takeover in taken.items()}

    def missed(self, tp: TopicPartition, records: int) -> None:
        """Count."""
        assert tp.topic in self.topics
        self.missed_records += records

    async def release(self, partitions: set[TopicPartition]) -> None:
        """Remember."""
        self.released.append(partitions)

    async def get(self, batch: MicroBatch) -> None:
        """What its agent does with a micro-batch."""
        self.got.append(batch)
        if self._acks:
            batch.ack()


def _batching(derived: Deriver, **options: Any) -> TransportOptions:
    return small_batches(*derived.topics, deriver=derived, **options)


def _member(kafka: KafkaSettings, derived: Derived, **options: Any) -> Member:
    return Member(kafka, _batching(derived, **options), derive=derived.get, broker_session_timeout=SESSION_SECONDS)


async def _taken_over(member: Member, topic: str) -> None:
    await until(lambda: member.app.consumer.held(TopicPartition(topic, 0)), "taken over")


async def _close(member: Member, topic: str, offset: int, hour: int) -> bool:
    closed: bool = await member.app.consumer.close_by_clock(TopicPartition(topic, 0), offset, hour)
    return closed


async def _close_in_the_end(member: Member, topic: str, offset: int, hour: int) -> None:
    """Both agents may not have acknowledged everything yet."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await _close(member, topic, offset, hour):  # noqa: ASYNC110 (the broker is what is asked)
            await asyncio.sleep(0.02)


def test_what_a_deriver_needs_again_is_replayed_up_to_the_committed_offset(kafka: KafkaSettings, topic: Topic) -> None:
    """By the policy, cut exactly there; then the recorded ranges as they were, then new ones; both agents get each."""
    topic.produce(numbers(40))
    topic.commit(25, str(Ranges("-", (27, 34))))
    derived = Derived(topic.name, 3)

    async def scenario() -> list[MicroBatch]:
        async with _member(kafka, derived, batches_in_flight=9) as member:
            batches = await member.take(6)
            for batch in batches[3:]:
                batch.ack()
            await until(lambda: topic.committed == {0: 40}, "committed")
        return batches

    batches = asyncio.run(scenario())
    replayed, live = [(3, 12), (13, 22), (23, 24)], [(25, 27), (28, 34), (35, 39)]
    assert ranges_of(batches) == [*replayed, *live]
    assert [batch.replayed for batch in batches] == [True] * 3 + [False] * 3
    assert values_of(batches) == numbers(37, start=3)
    assert all(one is other for one, other in zip(batches, derived.got, strict=True))
    assert derived.taken == [Takeover("-", 0, 25, ())]
    assert topic.read_commit() == (40, str(Ranges("-")))


def test_a_replay_is_bounded_and_never_committed(kafka: KafkaSettings, topic: Topic) -> None:
    """No more in flight than is allowed until the deriver has acknowledged; what was committed stays as it was."""
    topic.produce(numbers(60))
    topic.commit(45, str(Ranges("-", (49,))))
    recorded = (45, str(Ranges("-", (49,))))
    derived = Derived(topic.name, 0, acks=False)

    async def scenario() -> None:
        async with _member(kafka, derived, batches_in_flight=2) as member:
            await until(lambda: len(derived.got) == 2, "two of them")
            await asyncio.sleep(0.5)
            assert ranges_of(derived.got) == [(0, 9), (10, 19)]
            await member.app.commit(None)
            assert await asyncio.to_thread(topic.read_commit) == recorded
            for batch in derived.got:
                batch.ack()
            await until(lambda: len(derived.got) == 4, "the next two")

    asyncio.run(scenario())
    assert topic.read_commit() == recorded


@pytest.mark.parametrize("first", ["ingest", "deriver"])
def test_a_commit_waits_for_both_agents(kafka: KafkaSettings, topic: Topic, first: str) -> None:
    """One of them alone has nothing committed, whichever it is."""
    topic.produce(numbers(10))
    derived = Derived(topic.name, acks=False)

    async def scenario() -> None:
        async with _member(kafka, derived) as member:
            batches = await member.take()
            await until(lambda: derived.got, "to both")
            agents = [batches[0].ack, derived.got[0].ack]
            for ack in agents if first == "ingest" else reversed(agents):
                await member.app.commit(None)
                assert topic.committed == {0: 0}
                ack()
            await until(lambda: topic.committed == {0: 10}, "committed")

    asyncio.run(scenario())


def test_a_stop_does_not_wait_for_what_one_agent_has_not_taken(kafka: KafkaSettings, topic: Topic) -> None:
    """Faust drops what waits in its queue, so that the other agent's work on it can't be acknowledged by both."""
    topic.produce(numbers(20))
    derived = Derived(topic.name)
    busy = asyncio.Event()

    async def get(batch: MicroBatch) -> None:
        await busy.wait()
        await derived.get(batch)

    async def scenario() -> float:
        async with Member(kafka, _batching(derived, drain_seconds=5.0), derive=get) as member:
            for batch in await member.take(2):
                batch.ack()
            asyncio.get_running_loop().call_later(0.5, busy.set)
            began = time.monotonic()
        return time.monotonic() - began

    assert asyncio.run(scenario()) < 4
    assert ranges_of(derived.got) == [(0, 9)]
    assert topic.committed == {0: 10}


def _retention(topic: Topic, before: int) -> Derived:
    """A deriver that needs the log from offset 3; while it gets ready, retention deletes what is before an offset."""

    class Slow(Derived):
        async def take_over(self, taken: Mapping[TopicPartition, Takeover]) -> Mapping[TopicPartition, int]:
            await asyncio.to_thread(topic.delete_records, before)
            return await super().take_over(taken)

    return Slow(topic.name, 3)


async def _store(batch: MicroBatch) -> None:
    """What ingest does with a micro-batch."""
    if not batch.replayed:
        batch.ack()


_REPLAY = "offsets 3 to {} were deleted before they were replayed"
_LOST = "3 records are lost: offsets 25 to 27 were deleted by retention before they were consumed"


@pytest.mark.parametrize(
    ("before", "expected", "said"),
    [
        pytest.param(12, [(3, 21), (22, 24), (25, 34), (35, 39)], [_REPLAY.format(11)], id="some"),
        pytest.param(25, [(25, 34), (35, 39)], [_REPLAY.format(24)], id="all"),
        pytest.param(28, [(25, 37), (38, 39)], [_REPLAY.format(24), _LOST], id="more"),
    ],
)
def test_what_retention_deletes_before_it_is_replayed_is_said_and_not_lost(
    kafka: KafkaSettings, topic: Topic, caplog: pytest.LogCaptureFixture, before: int, *, expected: Any, said: list[str]
) -> None:
    """It is stored; only what was to be consumed is counted as lost."""
    topic.produce(numbers(40))
    topic.commit(25)
    derived = _retention(topic, before)
    counted = metrics.RECORDS_LOST.labels(topic.name)._value.get()

    async def scenario() -> None:
        async with Member(kafka, _batching(derived), _store, derived.get):
            await until(lambda: topic.committed == {0: 40}, "committed")

    asyncio.run(scenario())
    assert derived.missed_records == min(before, 25) - 3
    assert ranges_of(derived.got) == expected
    assert [line.split("-0: ")[1] for line in caplog.messages if "deleted" in line] == said
    assert metrics.RECORDS_LOST.labels(topic.name)._value.get() - counted == max(0, before - 25)


def test_a_log_that_ends_before_the_committed_offset_is_not_replayed(kafka: KafkaSettings, topic: Topic) -> None:
    """New records would stand where committed ones did, and be taken for these: a person has to look at that."""
    topic.produce(numbers(20))
    topic.commit(30)
    derived = Derived(topic.name, 5)
    failures: list[ChimeraError] = []

    async def scenario() -> None:
        async with _member(kafka, derived, halt=failures.append):
            await until(lambda: failures, "halted")
            await asyncio.to_thread(topic.produce, numbers(20))
            await asyncio.sleep(0.5)

    asyncio.run(scenario())
    assert [type(failure) for failure in failures] == [HaltError]
    assert str(failures[0]).startswith(f"{topic.name}-0: Kafka's log ends at 20, and 30 is committed")
    assert derived.got == []
    assert topic.committed == {0: 30}


def test_closings_are_recorded_and_forgotten(kafka: KafkaSettings, topic: Topic) -> None:
    """From metadata of version 1 to version 2 and back; the next owner is told of those that are still needed."""
    topic.produce(numbers(20))
    topic.commit(10, str(Ranges("-", (19,))))
    former, derived = Derived(topic.name), Derived(topic.name)

    async def scenario() -> None:
        async with _member(kafka, former) as member:
            await member.take_records(10)
            await _close_in_the_end(member, topic.name, 20, 500_000)
            closed = Ranges("-", (), (Closing(20, 500_000),))
            assert await asyncio.to_thread(topic.read_commit) == (20, str(closed))
            await asyncio.to_thread(topic.produce, numbers(5))
            await member.take_records(5)
            await _close_in_the_end(member, topic.name, 25, 500_001)
            await _close_in_the_end(member, topic.name, 25, 500_002)
        both = (Closing(20, 500_000), Closing(25, 500_002))
        assert await asyncio.to_thread(topic.read_commit) == (25, str(Ranges("-", (), both)))
        async with _member(kafka, derived) as member:
            await _taken_over(member, topic.name)
            assert derived.taken == [Takeover("-", 0, 25, both)]
            for before, left in ((25, both[1:]), (26, ())):
                member.app.consumer.forget_closings(TopicPartition(topic.name, 0), before)
                await member.app.commit(None)
                assert await asyncio.to_thread(topic.read_commit) == (25, str(Ranges("-", (), left)))

    asyncio.run(scenario())


def test_nothing_is_closed_while_records_come(kafka: KafkaSettings, topic: Topic) -> None:
    """Something in flight or in the log, another offset, or a partition that isn't ours: no, and nothing recorded."""
    topic.produce(numbers(10))
    derived = Derived(topic.name)
    place = TopicPartition(topic.name, 0)

    async def scenario() -> None:
        async with _member(kafka, derived) as member:
            [batch] = await member.take()
            assert not await _close(member, topic.name, 10, 5)
            batch.ack()
            await until(lambda: topic.committed == {0: 10}, "committed")
            assert not await _close(member, topic.name, 9, 5)
            assert not await member.app.consumer.close_by_clock(TopicPartition(topic.name, 1), 0, 5)
            member.app.consumer.pause_partitions({place})
            assert await member.idle_for(1.2), "Faust's poll of a second that was under way is over"
            await asyncio.to_thread(topic.produce, numbers(1))
            assert not await _close(member, topic.name, 10, 5)
            assert (await asyncio.to_thread(topic.read_commit)) == (10, str(Ranges("-")))

    asyncio.run(scenario())


@pytest.mark.parametrize("again", [True, False], ids=["asked-again", "gone-on"])
def test_a_closing_whose_answer_does_not_come_is_decided_by_the_next_commit(
    kafka: KafkaSettings, topic: Topic, stack: Stack, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    """Asked again, it is recorded; gone on without, it isn't, before anything is delivered that it would concern."""
    topic.produce(numbers(10))
    derived = Derived(topic.name)

    async def scenario() -> None:
        async with _member(kafka, derived, answer_seconds=1.0) as member:
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
                await _close(member, topic.name, 10, 5)
            monkeypatch.undo()
            stack.kafka.resume()
            if again:
                await _close_in_the_end(member, topic.name, 10, 5)
                assert (await asyncio.to_thread(topic.read_commit)) == (10, str(Ranges("-", (), (Closing(10, 5),))))
            await asyncio.to_thread(topic.produce, numbers(10))
            await member.take()
            closings = (Closing(10, 5),) if again else ()
            assert (await asyncio.to_thread(topic.read_commit)) == (10, str(Ranges("-", (19,), closings)))

    asyncio.run(scenario())


def test_a_member_that_slept_too_long_closes_nothing_and_releases_nothing(kafka: KafkaSettings, topic: Topic) -> None:
    """As after SIGSTOP: the broker doesn't know it any more, so the next owner needn't know of its closing."""
    topic.produce(numbers(10))
    late, derived = Derived(topic.name), Derived(topic.name)

    async def scenario() -> None:
        async with _member(kafka, late, answer_seconds=20.0) as sleeper:
            await sleeper.take_records(10)
            await until(lambda: topic.committed == {0: 10}, "committed")
            held = sleeper.app.consumer.held(TopicPartition(topic.name, 0))
            sleeper.app.consumer._thread.thread_loop.call_soon_threadsafe(time.sleep, 9.0)  # no heartbeats
            async with _member(kafka, derived) as owner:
                await _taken_over(owner, topic.name)
                assert held.live, "it doesn't know yet"
                assert not await _close(sleeper, topic.name, 10, 5)
                assert not held.live
                assert late.released == []
                await _close_in_the_end(owner, topic.name, 10, 7)

    asyncio.run(scenario())


def _close_and_die(kafka: KafkaSettings, topic: str) -> None:
    """A member in a process of its own, killed as soon as its closing is recorded."""

    async def scenario() -> None:
        async with _member(kafka, Derived(topic)) as member:
            await member.take_records(10)
            await _close_in_the_end(member, topic, 10, 5)
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(scenario())


def test_a_closing_survives_a_kill(kafka: KafkaSettings, topic: Topic) -> None:
    """Recorded means that the next owner is told."""
    topic.produce(numbers(10))
    victim = get_context("spawn").Process(target=_close_and_die, args=(kafka, topic.name))
    victim.start()
    victim.join(PATIENCE_SECONDS)
    assert victim.exitcode == -signal.SIGKILL
    derived = Derived(topic.name)

    async def scenario() -> None:
        async with _member(kafka, derived) as member:
            await _taken_over(member, topic.name)

    asyncio.run(scenario())
    assert derived.taken == [Takeover("-", 0, 10, (Closing(10, 5),))]


def test_a_deriver_releases_what_goes_while_it_is_ours(kafka: KafkaSettings) -> None:
    """In a rebalance and in a stop, after what is done is committed; and takes over what is assigned then."""
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
    member = Member(kafka, _batching(derived), derive=derived.get, broker_commit_interval=60.0)

    async def scenario() -> None:
        async with member:
            await member.take_records(10)
            async with _member(kafka, Derived(topic.name)) as other:
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
    """What isn't released is replayed; what is done is committed all the same."""
    topic.produce(numbers(10))

    class Slow(Derived):
        async def release(self, partitions: set[TopicPartition]) -> None:
            await super().release(partitions)
            if fault == "fails":
                raise RuntimeError
            await asyncio.sleep(PATIENCE_SECONDS)

    derived = Slow(topic.name)

    async def scenario() -> float:
        async with _member(kafka, derived, drain_seconds=1.0) as member:
            await member.take_records(10)
            began = time.monotonic()
        return time.monotonic() - began

    assert asyncio.run(scenario()) < 3
    assert len(derived.released) == 1
    assert topic.committed == {0: 10}
