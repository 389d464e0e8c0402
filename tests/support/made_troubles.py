"""Seconds until a made trouble is known, and two troubles of Kafka that need several steps."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions

from pipeline.catalog import TopicSpec
from pipeline.config import Settings
from pipeline.kafka.client import client_config
from pipeline.kafka.leaders import wait_for_leaders
from support.kafka_requests import answer_to
from support.processes import eventually


@dataclass(frozen=True, slots=True)
class Seconds:
    """Time from a trouble's begin until it is known."""

    ready: float
    """By /ready of the worker; infinite if no worker can know."""
    monitor: float
    """By the metrics of the monitor."""


def known(began: float, ready: Callable[[], object] | None, monitor: Callable[[], object]) -> Seconds:
    """Wait until /ready and the monitor know of a trouble; return the seconds since it began."""
    looks, seconds = {"monitor": monitor} | ({"ready": ready} if ready else {}), {"ready": math.inf}

    def look() -> bool:
        for who in [who for who, sees in looks.items() if sees()]:
            seconds[who] = time.monotonic() - began
            del looks[who]
        return not looks

    eventually(look, "known")
    return Seconds(**seconds)


def add_partition(settings: Settings, topic: TopicSpec, count: int) -> None:
    """Give a topic so many partitions, and wait until all have leaders."""
    admin = AdminClient({**client_config(settings.kafka), "log_level": 0})
    answer_to(lambda: admin.create_partitions([NewPartitions(topic.name, count)])[topic.name])
    wait_for_leaders(settings.kafka, {topic.name: count})


def publish_old(settings: Settings, topic: TopicSpec, count: int) -> None:
    """Publish a record that is an hour younger than the topic's retention, to a new partition: its age isn't known."""
    admin = AdminClient({**client_config(settings.kafka), "log_level": 0})
    entry = ConfigEntry("message.timestamp.type", "CreateTime", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic.name, incremental_configs=[entry])
    answer_to(lambda: admin.incremental_alter_configs([resource])[resource])
    add_partition(settings, topic, count)
    producer = Producer(client_config(settings.kafka))
    at = time.time() - (topic.retention_hours - 1) * 3600
    producer.produce(topic.name, b"old", partition=count - 1, timestamp=int(at * 1000))
    assert producer.flush(30) == 0
