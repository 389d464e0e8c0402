"""A group that doesn't let a worker in: a real broker refuses it, and lets it in when the way is free again."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer
from faust.assignor import PartitionAssignor
from support.faust_member import Member, numbers, small_batches, until, values_of
from support.kafka_topic import Topic
from support.processes import Worker, last_word, prepare

from pipeline.config import KafkaSettings, Settings, env_name
from pipeline.devstack import KafkaBroker
from pipeline.errors import HaltError
from pipeline.kafka.client import client_config

pytestmark = pytest.mark.integration

_NEW_PROTOCOL = {"group.protocol": "consumer"}


@contextmanager
def _foreign_member(kafka: KafkaSettings, topic: Topic, **config: str) -> Iterator[Consumer]:
    """A consumer of somebody else's in the group, which holds a partition."""
    consumer = Consumer({**client_config(kafka), "group.id": kafka.group_id, **config})
    consumer.subscribe([topic.name])
    try:
        while not consumer.assignment():
            consumer.poll(0.1)
        yield consumer
    finally:
        consumer.close()


async def _joins_when_free(
    kafka: KafkaSettings, topic: Topic, reason: str, free: Callable[[], Any], **options: Any
) -> None:
    """Check that a member waits and says why, and consumes everything when the way is free."""
    topic.produce(numbers(20))
    halted: list[Any] = []
    batching = small_batches(topic.name, join_pause_seconds=0.3, halt=halted.append, **options)
    member = Member(kafka, batching)
    starting = asyncio.create_task(member.app.start())  # it returns when the member has joined

    def tried_again() -> bool:
        trouble = member.app.consumer.trouble
        return trouble is not None and reason in trouble.cause and trouble.attempts > 1

    await until(tried_again, "said, and tried again")
    assert "doesn't let this worker in" in str(member.app.consumer.trouble)
    await asyncio.to_thread(free)
    await starting
    assert values_of(await member.take_records(20)) == numbers(20)
    assert member.app.consumer.trouble is None
    await member.app.stop()
    assert halted == []


def test_a_consumer_with_another_assignor_is_waited_for(kafka: KafkaSettings, topic: Topic) -> None:
    """The worker says why it isn't in and tries again; when the other leaves, it joins without a restart."""
    with _foreign_member(kafka, topic) as other:
        reason = "a consumer with another assignor or another protocol"
        asyncio.run(_joins_when_free(kafka, topic, reason, other.close))


@pytest.mark.parametrize("version", [4, 0], ids=["metadata that the broker can't read", "metadata that it can read"])
def test_a_consumer_of_the_new_group_protocol_is_waited_for(
    kafka: KafkaSettings, topic: Topic, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """The broker doesn't let the worker in, or assigns by itself; then the worker leaves at once, and waits too."""
    monkeypatch.setattr(PartitionAssignor, "version", version)
    with _foreign_member(kafka, topic, **_NEW_PROTOCOL) as other:
        reason = "a consumer of the new group protocol (group.protocol=consumer) is in"
        asyncio.run(_joins_when_free(kafka, topic, reason, other.close))


def test_a_consumer_of_the_new_group_protocol_does_not_get_into_a_group_of_workers(
    kafka: KafkaSettings, topic: Topic
) -> None:
    """A running worker goes on as before: the broker refuses the other one."""
    topic.produce(numbers(10))

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name)) as member:
            before = await member.take_records(10)
            other = Consumer({**client_config(kafka), "group.id": kafka.group_id, **_NEW_PROTOCOL})
            other.subscribe([topic.name])
            for _ in range(20):
                await asyncio.to_thread(other.poll, 0.1)
            assert other.assignment() == []
            topic.produce(numbers(10, start=10))
            assert values_of([*before, *await member.take_records(10)]) == numbers(20)
            await asyncio.to_thread(other.close)

    asyncio.run(scenario())


def test_a_full_group_is_waited_for(tmp_path: Path) -> None:
    """A worker too many says so, and takes the place of one that leaves."""
    with KafkaBroker(tmp_path / "kafka", properties={"group.max.size": "1"}) as broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, group_id="full")
        topic = Topic(kafka)

        async def scenario() -> None:
            first = Member(kafka, small_batches(topic.name))
            await first.app.start()
            await until(lambda: first.partitions == 1, "the first has joined")
            loop = asyncio.get_running_loop()

            def free() -> None:
                asyncio.run_coroutine_threadsafe(first.app.stop(), loop).result()

            await _joins_when_free(kafka, topic, "GROUP_MAX_SIZE_REACHED", free)

        asyncio.run(scenario())


def test_a_session_that_the_broker_does_not_allow_ends_the_worker(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """Longer than the broker's maximum: one line that names the setting, and exit code 70."""
    with KafkaBroker(tmp_path / "kafka", properties={"group.max.session.timeout.ms": "30000"}) as broker:
        kafka = settings.kafka.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
        prepare(settings.model_copy(update={"kafka": kafka}))
        with Worker(
            {**environ, env_name("kafka", "bootstrap_servers"): broker.bootstrap_servers}, tmp_path / "log"
        ) as worker:
            said = last_word(worker, HaltError.exit_code)
    assert "INVALID_SESSION_TIMEOUT" in said
    assert "give CHIMERA_KAFKA__SESSION_TIMEOUT_SECONDS a value" in said


def test_an_assignor_that_fails_ends_the_worker(kafka: KafkaSettings, topic: Topic) -> None:
    """An error that aiokafka doesn't foresee ends its coordination, and so the worker, which would wait for ever."""
    halted: list[Any] = []

    async def scenario() -> None:
        member = Member(kafka, small_batches(topic.name, halt=halted.append))

        def fail(_: Any) -> None:
            raise ValueError("unreadable")

        member.app.assignor.on_assignment = fail
        starting = asyncio.create_task(member.app.start())
        await until(lambda: halted, "halted")
        starting.cancel()
        await member.app.stop()

    asyncio.run(scenario())
    assert "unreadable" in str(halted[0])
    assert isinstance(halted[0], HaltError)
