"""TopicReader on a real broker: ranges are read to their end, across deleted records, and never for ever."""

import pytest
from confluent_kafka import Producer
from support.kafka_topic import Topic
from support.processes import eventually

from pipeline.config import Settings
from pipeline.errors import ChimeraError, HaltError, UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.offsets import TopicReader, offset_of

pytestmark = pytest.mark.integration


@pytest.fixture
def topic(settings: Settings) -> Topic:
    """A topic with ten records in partition 0 and five in partition 1."""
    topic = Topic(settings.kafka, partitions=3)
    topic.produce([b"%d" % number for number in range(10)])
    topic.produce([b"%d" % number for number in range(5)], partition=1)
    return topic


def test_ranges_are_read_exactly(settings: Settings, topic: Topic) -> None:
    """Each record within its range is read once, in the order of offsets, and progress counts offsets."""
    told: list[tuple[int, int]] = []
    with TopicReader(settings.kafka, topic.name) as reader:
        assert reader.partitions() == [0, 1, 2]
        assert reader.ranges() == {0: range(10), 1: range(5), 2: range(0)}
        found = reader.read({0: range(3, 8), 1: range(5), 2: range(0)}, lambda done, total: told.append((done, total)))
        assert [(message.partition(), message.offset()) for message in found] == [
            *((0, offset) for offset in range(3, 8)),
            *((1, offset) for offset in range(5)),
        ]
    assert told == [(done, 10) for done in range(1, 11)]
    assert topic.committed == {}


@pytest.mark.parametrize("time_ms", [-1, -2, -3, -1_000, -62_135_596_800_000, 0])
def test_a_time_before_1970_is_before_all_records(settings: Settings, topic: Topic, time_ms: int) -> None:
    """Kafka takes -1 for the end of the log: a replay from there would read nothing, and miss nothing."""
    with TopicReader(settings.kafka, topic.name) as reader:
        assert reader.first_since(time_ms, [0, 1, 2]) == {0: 0, 1: 0}
        assert reader.ranges_since(time_ms) == {0: range(10), 1: range(5), 2: range(0)}


def test_records_are_picked(settings: Settings, topic: Topic) -> None:
    """Only the records at the given offsets are read; offsets behind the end have none."""
    with TopicReader(settings.kafka, topic.name) as reader:
        assert [message.value() for message in reader.pick(0, [1, 4, 9])] == [b"1", b"4", b"9"]


def test_deleted_records_are_skipped_or_an_error(settings: Settings, topic: Topic) -> None:
    """The caller chooses; deletion may also reach beyond the range."""
    topic.delete_records(before=6)
    with TopicReader(settings.kafka, topic.name) as reader:
        assert reader.ranges([0]) == {0: range(6, 10)}
        assert [offset_of(message) for message in reader.read({0: range(2, 8)})] == [6, 7]
        assert list(reader.read({0: range(2, 5)})) == []
    with TopicReader(settings.kafka, topic.name, skip_deleted=False) as reader, pytest.raises(ChimeraError):
        list(reader.read({0: range(2, 8)}))


def test_a_range_may_end_with_a_transaction_marker(settings: Settings, topic: Topic) -> None:
    """The last offset of a range may hold no record; the end of the log ends the range."""
    producer = Producer({**client_config(settings.kafka), "transactional.id": topic.name})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic.name, b"aborted", partition=2)
    assert producer.flush(30) == 0
    producer.abort_transaction(30)
    with TopicReader(settings.kafka, topic.name, silence_seconds=5) as reader:
        eventually(lambda: reader.ranges([2]) == {2: range(2)}, "the marker is written")
        assert [message.value() for message in reader.read({2: range(2)})] == [b"aborted"]


def test_a_range_behind_the_end_of_the_log_is_not_waited_for(settings: Settings, topic: Topic) -> None:
    """A log that lost its end, or a wrong range, is an error once the reader has been patient."""
    with (
        TopicReader(settings.kafka, topic.name, silence_seconds=0.5, probe_seconds=1) as reader,
        pytest.raises(UnavailableError),
    ):
        list(reader.read({0: range(8, 12)}))


def test_a_missing_topic_is_named(settings: Settings) -> None:
    """The message says how to create it."""
    with (
        TopicReader(settings.kafka, "absent") as reader,
        pytest.raises(HaltError, match="no topic absent; create it with `chimera topics apply`"),
    ):
        reader.ranges()
