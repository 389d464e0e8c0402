"""Workload of the contenders: valid ui_events in one topic, published before any contender starts."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import Producer as KafkaProducer

from benchmarks.registry import SCHEMA_ID
from pipeline.catalog import load_catalog
from pipeline.config import Settings
from pipeline.kafka.client import client_config
from pipeline.kafka.topics import TopicAdmin, plan
from pipeline.producer.producer import Producer
from pipeline.sample import sample
from pipeline.sample.stories import Event
from pipeline.schema.framing import frame_confluent

FAMILY = "ui_events"
_SEED = 5
START = datetime(2026, 1, 5, tzinfo=UTC)
_HOURS = 24.0  # one day is one table partition, so a batch is one part for every contender

_CUT_SHORT = frame_confluent(SCHEMA_ID, b"\x80\x80")

Progress = Callable[[int], object]
"""Called with the number of published events."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Sums over a table; equal sums show that it has each event once."""

    rows: int
    ts_sum: int
    """Sum of `ts` in milliseconds since 1970."""
    latency_sum: int
    sessions: int


@dataclass(frozen=True, slots=True)
class Workload:
    """Topic with events, and the fingerprint of their table."""

    topic: str
    partitions: int
    fingerprint: Fingerprint


def usual(events: int) -> Iterator[Event]:
    """Yield `ui_events` of one day, in order of time."""
    return sample(events, seed=_SEED, start=START, hours=_HOURS, families=[FAMILY])


def publish(
    settings: Settings, events: Iterable[Event], progress: Progress, reject_every: int | None = None
) -> Workload:
    """Create the topics on a new broker and publish the events: keyed, lz4, Confluent framing if there is a registry.

    Args:
        settings: of the broker and the registry.
        events: to publish.
        progress: called after each event.
        reject_every: number of events between two truncated records; None for no such record.

    Raises:
        UnavailableError: the broker or the registry doesn't answer.
        HaltError: the broker refuses the topics.
        DeliveryError: the broker refused an event.
    """
    catalog = load_catalog(settings)
    topic = catalog.family(FAMILY).topic
    admin = TopicAdmin(settings.kafka)
    admin.apply(plan(catalog.topics, admin.read([]), settings.topics.file))
    number = ts_sum = latency_sum = 0
    sessions: set[str] = set()
    spoiling = KafkaProducer({**client_config(settings.kafka), "compression.type": "lz4"})
    with Producer(settings, catalog) as producer:
        for number, (family, event) in enumerate(events, 1):
            producer.send(family, event)
            ts_sum += event["ts"]
            latency_sum += event["latency_ms"]
            sessions.add(event["session_id"])
            if reject_every and number % reject_every == 0:
                spoiling.produce(topic.name, _CUT_SHORT, key=event["session_id"])
            progress(number)
    spoiling.flush()
    return Workload(topic.name, topic.partitions, Fingerprint(number, ts_sum, latency_sum, len(sessions)))
