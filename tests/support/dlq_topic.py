"""Dead letters in a real topic: writes them as a worker does, and reads topics back."""

import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition

from pipeline.catalog import Family
from pipeline.columns import Rejection
from pipeline.config import Settings
from pipeline.dlq.letters import DlqRecord
from pipeline.dlq.writer import DeadLetters
from pipeline.errors import Reason
from pipeline.kafka.client import client_config
from pipeline.transport.micro_batch import State
from pipeline.transport.partition import PartitionBatches
from support.kafka_requests import watermarks
from support.records import parts_of


def reject(settings: Settings, family: Family, records: Sequence[DlqRecord], reason: Reason = Reason.MALFORMED) -> None:
    """Write dead letters of records of partition 1, as a worker does."""
    partition = PartitionBatches(family.topic.name, "id", 1, State(records[0].offset, ()), policy=family.batch, limit=1)
    partition.add(parts_of(records), 0)
    (batch,) = partition.cut(0, hurry=True)
    rejections = [Rejection(position, reason, "because") for position in range(len(records))]
    DeadLetters(settings.kafka, [family]).send(batch, rejections)


def made_up(count: int, first: int = 0, **also: Any) -> list[DlqRecord]:
    """Make records as a worker has them, each with a key."""
    numbers = range(first, first + count)
    now = round(time.time() * 1000)
    return [DlqRecord(1, n, now, f"key-{n}".encode(), b"%d" % n, also.get("headers", [])) for n in numbers]


def messages(settings: Settings, topic: str) -> list[Message]:
    """Read all records of a topic."""
    consumer = Consumer({**client_config(settings.kafka), "group.id": "-"})
    try:
        found: list[Message] = []
        for number in consumer.list_topics(topic).topics[topic].partitions:
            partition = TopicPartition(topic, number, 0)
            _, end = watermarks(consumer, partition)
            consumer.assign([partition])
            while sum(message.partition() == number for message in found) < end:
                found += consumer.consume(end, 1)
        return found
    finally:
        consumer.close()


def values(settings: Settings, family: Family) -> list[bytes]:
    """Return the values in the source topic, sorted."""
    return sorted(message.value() or b"" for message in messages(settings, family.topic.name))
