"""Ids of topics, looked up through aiokafka: those that librdkafka tells, and no harm from a silent broker."""

import asyncio
import time
from threading import Timer

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from support.faust_member import Member, numbers, small_batches, until, values_of
from support.kafka_topic import Topic

from pipeline.config import KafkaSettings
from pipeline.devstack import Stack
from pipeline.kafka.client import client_config
from pipeline.kafka.leaders import wait_for_leaders
from pipeline.kafka.topics import TopicAdmin
from pipeline.transport.adapter.broker import ThreadBroker

pytestmark = pytest.mark.integration

_SILENT_SECONDS = 40.0  # librdkafka's assertion came after 25 s
_TOPICS = 30  # so many ids have each character of Base64


def test_ids_are_those_that_librdkafka_tells(kafka: KafkaSettings, topic: Topic) -> None:
    """Commits and tokens of earlier versions hold these; a missing topic is left out."""
    names = [f"{kafka.group_id}.{number}" for number in range(_TOPICS)]
    admin = AdminClient(dict(client_config(kafka)))
    for future in admin.create_topics([NewTopic(name, 3, 1) for name in names]).values():
        future.result()
    wait_for_leaders(kafka, dict.fromkeys(names, 3))

    async def scenario() -> None:
        async with Member(kafka, small_batches(topic.name, topic_ids=None)) as member:
            broker = ThreadBroker(member.app.consumer._thread)
            found = await broker.topic_ids([*names, "missing", "not a name"])
            assert found == await asyncio.to_thread(TopicAdmin(kafka).ids, names)
            assert len(found) == _TOPICS

    asyncio.run(scenario())


def test_a_broker_that_is_silent_for_long_does_no_harm(kafka: KafkaSettings, topic: Topic, stack: Stack) -> None:
    """The process lives, and goes on where it was when the broker answers again."""
    topic.produce(numbers(20))

    async def scenario() -> None:
        options = small_batches(topic.name, topic_ids=None, topic_check_seconds=1.0, answer_seconds=2.0)
        async with Member(kafka, options) as member:
            before = await member.take_records(20)
            await until(lambda: topic.committed == {0: 20}, "committed")
            stack.kafka.pause()
            began = time.monotonic()
            resumed = Timer(_SILENT_SECONDS, stack.kafka.resume)
            resumed.start()
            await asyncio.to_thread(resumed.join)
            assert time.monotonic() - began >= _SILENT_SECONDS
            await asyncio.to_thread(topic.produce, numbers(20, start=20))
            assert values_of([*before, *await member.take_records(20)]) == numbers(40)

    asyncio.run(scenario())
