"""The reader of a replay, on a real broker: every offset of its ranges is in exactly one stretch."""

import pytest
from support.kafka_topic import Topic
from support.processes import eventually
from support.transactions import TransactionalProducer

from pipeline.config import KafkaSettings
from pipeline.errors import UnavailableError
from pipeline.transport.adapter.log_reader import LogReader
from pipeline.transport.stretches import LogStretch

pytestmark = pytest.mark.integration

_COUNT = 3_000


def _offsets(stretches: list[LogStretch], partition: int) -> list[int]:
    return [record.offset for each in stretches if each.partition == partition for record in each.records]


def _covered(stretches: list[LogStretch], partition: int) -> list[int]:
    return [at for each in stretches if each.partition == partition for at in range(each.first, each.next_offset)]


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_ranges_of_several_partitions_are_read_to_their_ends(kafka: KafkaSettings, codec: str) -> None:
    """Records before, between and after the ranges are left out, also of a batch that is compressed as a whole."""
    topic = Topic(kafka, partitions=2)
    for partition in range(2):
        topic.produce((b"%d" % number for number in range(_COUNT)), partition, codec)
    ranges = {0: [range(5, 10), range(20, 2_000)], 1: [range(2_990, _COUNT)]}
    with LogReader(kafka, topic.name) as reader:
        for _ in range(2):  # a reader may read again
            stretches = list(reader.read(ranges))
            for partition, some in ranges.items():
                wanted = [at for each in some for at in each]
                assert _offsets(stretches, partition) == _covered(stretches, partition) == wanted
    assert {each.records[0].value for each in stretches if each.first == 5} == {b"5"}
    assert topic.committed == {}
    assert topic.members == set()


def test_offsets_of_aborted_transactions_and_markers_are_passed(kafka: KafkaSettings) -> None:
    """The worker stores none of these records either."""
    topic = Topic(kafka)
    topic.produce([b"before"])
    with TransactionalProducer(kafka, topic.name) as producer:
        producer.send(topic.name, [(None, b"committed")])
        producer.commit()
        producer.send(topic.name, [(None, b"aborted")])
        producer.abort()
    eventually(lambda: topic.end == 5, "both markers")
    with LogReader(kafka, topic.name) as reader:
        stretches = list(reader.read({0: [range(5)]}))
    assert [record.value for each in stretches for record in each.records] == [b"before", b"committed"]
    assert _covered(stretches, 0) == [0, 1, 2, 3, 4]


def test_deleted_offsets_are_named(kafka: KafkaSettings) -> None:
    """Retention may pass the reader; it goes on behind what is gone."""
    topic = Topic(kafka)
    topic.produce(b"%d" % number for number in range(100))
    topic.delete_records(40)
    with LogReader(kafka, topic.name) as reader:
        stretches = list(reader.read({0: [range(10, 20), range(30, 100)]}))
    assert [(each.first, each.next_offset) for each in stretches if each.deleted] == [(10, 20), (30, 40)]
    assert _offsets(stretches, 0) == list(range(40, 100))


def test_a_silent_log_ends_the_reading(kafka: KafkaSettings) -> None:
    """A log that ends before its range has nothing to wait for."""
    topic = Topic(kafka)
    topic.produce([b"only"])
    with LogReader(kafka, topic.name, silence_seconds=5.0) as reader:
        silent = reader.read({0: [range(5)]})
        with pytest.raises(UnavailableError, match="at offset 1"):
            list(silent)
