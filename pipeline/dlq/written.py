"""Dead letters that an earlier owner of a micro-batch's range wrote."""

from pipeline.config import KafkaSettings
from pipeline.dlq.letters import letter_id, read_letter, read_record
from pipeline.kafka.offsets import TopicReader
from pipeline.transport.micro_batch import MicroBatch

_ANSWER_SECONDS = 5.0
_MARGIN_MS = 3_600_000  # by which a producer's clock may be ahead of the broker's


def dead_positions(settings: KafkaSettings, topic: str, batch: MicroBatch) -> set[int]:
    """Return the positions of the records that have a whole dead letter.

    Dead letters are read from an hour before the oldest record on: they are written after it.

    Args:
        settings: the broker.
        topic: the dead-letter topic.
        batch: records of its source topic.

    Raises:
        UnavailableError: Kafka doesn't answer.
        HaltError: Kafka refuses.
    """
    with TopicReader(settings, topic, answer_seconds=_ANSWER_SECONDS, silence_seconds=_ANSWER_SECONDS) as reader:
        ranges = reader.ranges_since(max(int(batch.timestamps.min()) - _MARGIN_MS, 0))
        found = {read_letter(batch.topic, read_record(message)).id for message in reader.read(ranges)}
    return {
        position
        for position, record in enumerate(batch.records)
        if letter_id(batch.partition, record.offset, record.key, record.value) in found
    }
