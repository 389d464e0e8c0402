"""Wait for the leaders of new partitions: brokers acknowledge a topic moments before they know it themselves."""

from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipeline.config import KafkaSettings
from pipeline.errors import UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import NO_TOPIC, NOT_NOW, explain_kafka

_POLL_SECONDS = 0.1
_NAMED = 8  # partitions in a message
# What brokers answer until they know a new partition and its leader has taken it over.
_NOT_YET = NO_TOPIC | NOT_NOW | {KafkaError._NOENT}  # noqa: SLF001 (public under a name with an underscore)


def wait_for_leaders(settings: KafkaSettings, topics: Mapping[str, int], *, wait_seconds: float = 30.0) -> None:
    """Wait until each partition of these topics has a leader that answers for it.

    Args:
        settings: the cluster.
        topics: numbers of partitions by topic.
        wait_seconds: longest wait.

    Raises:
        UnavailableError: a partition has no leader after that time, or the cluster doesn't answer.
        HaltError: the cluster refuses.
    """
    deadline = monotonic() + wait_seconds
    waiting = [TopicPartition(name, number) for name, count in topics.items() for number in range(count)]
    while waiting := _without_leader(settings, waiting):
        if monotonic() > deadline:
            missing = ", ".join(f"{partition.topic}[{partition.partition}]" for partition in waiting[:_NAMED])
            missing += f" and {len(waiting) - _NAMED} more" if waiting[_NAMED:] else ""
            raise UnavailableError(
                f"Kafka at {settings.bootstrap_servers}: no leader for {missing} after {wait_seconds:.0f} s; "
                "expected each partition to have one"
            )
        sleep(_POLL_SECONDS)


def _without_leader(settings: KafkaSettings, partitions: list[TopicPartition]) -> list[TopicPartition]:
    if not partitions:
        return []
    client = AdminClient({**client_config(settings), "log_level": 0})  # an old one remembers missing topics
    latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call] # confluent-kafka declares no types here
    without = []
    for partition, future in client.list_offsets(dict.fromkeys(partitions, latest)).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET:
                raise explain_kafka(error.args[0], settings, f"topic {partition.topic}") from None
            without.append(partition)
    return without
