"""Replays of the batch transport for a deriver, on a real broker."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest
from support.derived import (
    Derived,
    derived_options,
    deriving_member,
)
from support.faust_member import Member, numbers, ranges_of, until, values_of
from support.kafka_topic import Topic

from pipeline import metrics
from pipeline.config import KafkaSettings
from pipeline.errors import ChimeraError, HaltError
from pipeline.transport.broker import TopicPartition
from pipeline.transport.commit_metadata import Ranges
from pipeline.transport.deriver import Takeover
from pipeline.transport.micro_batch import MicroBatch

pytestmark = pytest.mark.integration


def test_records_that_a_deriver_needs_are_replayed_up_to_the_committed_offset(
    kafka: KafkaSettings, topic: Topic
) -> None:
    """The replay is cut by the policy and ends exactly there; both agents get the same micro-batches."""
    topic.produce(numbers(40))
    topic.commit(25, str(Ranges("-", (27, 34))))
    derived = Derived(topic.name, 3)

    async def scenario() -> list[MicroBatch]:
        async with deriving_member(kafka, derived, batches_in_flight=9) as member:
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
    assert derived.taken == [Takeover("-", 0, 25, (), 35)]
    assert topic.read_commit() == (40, str(Ranges("-")))


def test_a_replay_is_bounded_and_never_committed(kafka: KafkaSettings, topic: Topic) -> None:
    """The limit in flight holds, and the commit stays as it was."""
    topic.produce(numbers(60))
    topic.commit(45, str(Ranges("-", (49,))))
    committed = (45, str(Ranges("-", (49,))))
    derived = Derived(topic.name, 0, acks=False)

    async def scenario() -> None:
        async with deriving_member(kafka, derived, batches_in_flight=2) as member:
            await until(lambda: len(derived.got) == 2, "two of them")
            await asyncio.sleep(0.5)
            assert ranges_of(derived.got) == [(0, 9), (10, 19)]
            await member.app.commit(None)
            assert await asyncio.to_thread(topic.read_commit) == committed
            for batch in derived.got:
                batch.ack()
            await until(lambda: len(derived.got) == 4, "the next two")

    asyncio.run(scenario())
    assert topic.read_commit() == committed


@pytest.mark.parametrize("first", ["ingest", "deriver"])
def test_a_commit_waits_for_both_agents(kafka: KafkaSettings, topic: Topic, first: str) -> None:
    """An acknowledgement by one of them commits nothing."""
    topic.produce(numbers(10))
    derived = Derived(topic.name, acks=False)

    async def scenario() -> None:
        async with deriving_member(kafka, derived) as member:
            batches = await member.take()
            await until(lambda: derived.got, "to both")
            agents = [batches[0].ack, derived.got[0].ack]
            for ack in agents if first == "ingest" else reversed(agents):
                await member.app.commit(None)
                assert topic.committed == {0: 0}
                ack()
            await until(lambda: topic.committed == {0: 10}, "committed")

    asyncio.run(scenario())


def test_a_stop_does_not_wait_for_a_micro_batch_that_one_agent_has_not_taken(
    kafka: KafkaSettings, topic: Topic
) -> None:
    """Faust clears that agent's queue, so the micro-batch can't be acknowledged by both agents."""
    topic.produce(numbers(20))
    derived = Derived(topic.name)
    busy = asyncio.Event()

    async def get(batch: MicroBatch) -> None:
        await busy.wait()
        await derived.get(batch)

    async def scenario() -> float:
        async with Member(kafka, derived_options(derived, drain_seconds=30.0), derive=get) as member:
            for batch in await member.take(2):
                batch.ack()
            asyncio.get_running_loop().call_later(2.0, busy.set)
            began = time.monotonic()
        return time.monotonic() - began

    assert asyncio.run(scenario()) < 20
    assert ranges_of(derived.got) == [(0, 9)]
    assert topic.committed == {0: 10}


def _retention(topic: Topic, before: int) -> Derived:
    """Return a deriver that needs the log from offset 3; retention deletes records while it gets ready."""

    class Slow(Derived):
        async def take_over(self, taken: Mapping[TopicPartition, Takeover]) -> Mapping[TopicPartition, int]:
            await asyncio.to_thread(topic.delete_records, before)
            return await super().take_over(taken)

    return Slow(topic.name, 3)


async def _store(batch: MicroBatch) -> None:
    """Acknowledge as ingest does."""
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
def test_records_deleted_before_their_replay_are_logged_and_not_lost(
    kafka: KafkaSettings, topic: Topic, caplog: pytest.LogCaptureFixture, before: int, *, expected: Any, said: list[str]
) -> None:
    """Records that were to be replayed are stored already; only others are counted as lost."""
    topic.produce(numbers(40))
    topic.commit(25)
    derived = _retention(topic, before)
    counted = metrics.RECORDS_LOST.labels(topic.name)._value.get()

    async def scenario() -> None:
        async with Member(kafka, derived_options(derived), _store, derived.get):
            await until(lambda: topic.committed == {0: 40}, "committed")

    asyncio.run(scenario())
    assert derived.missed_records == min(before, 25) - 3
    assert ranges_of(derived.got) == expected
    assert [line.split("-0: ")[1] for line in caplog.messages if "deleted" in line] == said
    assert metrics.RECORDS_LOST.labels(topic.name)._value.get() - counted == max(0, before - 25)


def test_a_log_that_ends_before_the_committed_offset_is_not_replayed(kafka: KafkaSettings, topic: Topic) -> None:
    """New records would pass for the committed ones at these offsets; a person has to decide."""
    topic.produce(numbers(20))
    topic.commit(30)
    derived = Derived(topic.name, 5)
    failures: list[ChimeraError] = []

    async def scenario() -> None:
        async with deriving_member(kafka, derived, halt=failures.append):
            await until(lambda: failures, "halted")
            await asyncio.to_thread(topic.produce, numbers(20))
            await asyncio.sleep(0.5)

    asyncio.run(scenario())
    assert [type(failure) for failure in failures] == [HaltError]
    assert str(failures[0]).startswith(f"{topic.name}-0: Kafka's log ends at 20, and 30 is committed")
    assert derived.got == []
    assert topic.committed == {0: 30}
