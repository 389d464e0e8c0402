"""Time of the newest record of a topic, by the timestamps of its records."""

from typing import Any

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipeline.config import KafkaSettings
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import NO_TOPIC, check_connection, explain_kafka


def newest_timestamp(settings: KafkaSettings, topic: str, *, answer_seconds: float = 10.0) -> int | None:
    """Return the greatest timestamp of a topic's records in ms since 1970; None if it has no records, or is missing.

    Args:
        settings: the broker.
        topic: name of the topic.
        answer_seconds: longest wait for an answer.

    Raises:
        UnavailableError: the broker doesn't answer.
        HaltError: the broker refuses.
    """
    check_connection(settings)
    client = AdminClient({**client_config(settings), "log_level": 0})
    try:
        described = client.describe_topics(TopicCollection([topic]), request_timeout=answer_seconds)[topic].result()
        newest: Any = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call] # confluent-kafka declares no types here
        asked = {TopicPartition(topic, partition.id): newest for partition in described.partitions}
        found = client.list_offsets(asked, request_timeout=answer_seconds)
        times = [future.result() for future in found.values()]
    except KafkaException as error:
        if error.args[0].code() in NO_TOPIC:
            return None
        raise explain_kafka(error.args[0], settings, f"topic {topic}") from None
    return max((at.timestamp for at in times if at.offset >= 0), default=None)
