"""A topic whose records are stored as a worker stores them, without a worker: rows, dead letters, commit."""

from collections.abc import Collection, Iterable

import numpy as np
from confluent_kafka import Message, Producer

from pipeline.catalog import Family
from pipeline.clickhouse.coordinates import Source
from pipeline.clickhouse.sink import Sink
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.dlq.letters import read_record
from pipeline.dlq.writer import DeadLetters
from pipeline.kafka.client import client_config
from pipeline.kafka.offsets import TopicReader
from pipeline.kafka.topics import TopicAdmin
from pipeline.transport.micro_batch import State
from pipeline.transport.partition import PartitionBatches
from support.kafka_topic import Topic
from support.records import parts_of

_SECONDS = 120.0
PARTITIONS = 2


def publish_to(settings: Settings, topic: str, values: Iterable[bytes | None], partition: int = 0) -> None:
    """Send values of any bytes to one partition."""
    producer = Producer({**client_config(settings.kafka), "linger.ms": 5})
    for value in values:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(_SECONDS) == 0


def ingest(settings: Settings, family: Family, *, without_letters: bool = False) -> dict[int, int]:
    """Store the records of the topic that aren't committed yet, and commit; return the committed offsets.

    Args:
        settings: servers and group.
        family: its topic and table exist.
        without_letters: True to forget the dead letters.
    """
    topic = Topic.existing(settings.kafka, family.topic.name, PARTITIONS)
    ends = {}
    with TopicReader(settings.kafka, family.topic.name, only_committed=True) as reader:
        ranges = reader.ranges()
        before = reader.committed(ranges)
        for number, offsets in ranges.items():
            left = range(max(offsets.start, before[number] or 0), offsets.stop)
            ends[number] = left.stop
            if messages := list(reader.read({number: left})):
                store(settings, family, number, messages, without_letters=without_letters)
            if left.stop:
                topic.commit(left.stop, partition=number)
    return ends


def store(
    settings: Settings,
    family: Family,
    partition: int,
    messages: Collection[Message],
    *,
    without_letters: bool = False,
) -> None:
    """Insert rows with their coordinates, and write dead letters."""
    records = [read_record(message) for message in messages]
    batches = PartitionBatches(
        family.topic.name, "id", partition, State(records[0].offset, ()), policy=family.batch, limit=1
    )
    batches.add(parts_of(records), 0)
    (batch,) = batches.cut(0, hurry=True)
    decoder = Decoder(family, validation=settings.validation)
    rows = decoder.decode_slices(((each.values, each.timestamps) for each in batch.slices()), len(batch))
    if rows.rejections and not without_letters:
        DeadLetters(settings.kafka, [family]).send(batch, rows.rejections)
    offsets = np.array([record.offset for record in records], np.int64)[rows.positions]
    topic_id = TopicAdmin(settings.kafka).ids([family.topic.name])[family.topic.name]
    columns = {**rows.columns, **Source.of(topic_id, partition).columns(offsets)}
    sink = Sink(settings.clickhouse)
    token = f"{topic_id}/{partition}/{records[0].offset}"
    sink.insert(family.table, columns, token, lambda: None)
