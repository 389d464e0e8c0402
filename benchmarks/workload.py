"""Workload of the contenders: `ui_events` in a topic, published before any contender starts.

All workloads of a run lie on one broker, each in a topic of its own; the worker finds it in a topics.yaml that is made
for the workload, the other contenders by its name.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.process import ContenderError
from benchmarks.registry import SCHEMA_ID
from pipeline.catalog import Catalog, TopicSpec, load_catalog
from pipeline.config import Settings, TopicsSettings
from pipeline.kafka.client import client_config
from pipeline.kafka.producing import RecordProducer
from pipeline.kafka.topics import TopicAdmin, plan
from pipeline.producer.encode import Encoder
from pipeline.producer.sample import sample
from pipeline.producer.sample.stories import Event
from pipeline.schema.framing import frame_confluent

FAMILY = "ui_events"
_SEED = 5
START = datetime(2026, 1, 5, tzinfo=UTC)
_HOURS = 24.0  # one day is one table partition, so a batch is one part for every contender

_CUT_SHORT = frame_confluent(SCHEMA_ID, b"\x80\x80")
_PRODUCER: Mapping[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
    "linger.ms": 50,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 200_000,
    "delivery.report.only.error": True,
}
_PROGRESS_EVERY = 1000  # events
_ADMIN_SECONDS = 30.0
_POLL_SECONDS = 0.05

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

    settings: Settings
    """Settings with the topics.yaml that declares the topic."""
    topic: str
    topic_id: str
    partitions: int
    fingerprint: Fingerprint
    records: int
    """Records of the topic: the events, and those to be rejected."""

    def check_topic(self) -> None:
        """Check that the topic is still the one that was filled, with the same records.

        Raises:
            ContenderError: it is another topic, or has other records.
        """
        consumer = Consumer({**client_config(self.settings.kafka), "group.id": "benchmarks"})
        try:
            marks = [consumer.get_watermark_offsets(TopicPartition(self.topic, n)) for n in range(self.partitions)]
        finally:
            consumer.close()
        records, found = sum(high - low for low, high in marks), TopicAdmin(self.settings.kafka).ids([self.topic])
        if records != self.records or found != {self.topic: self.topic_id}:
            raise ContenderError(
                f"{self.topic}: expected id {self.topic_id} and {self.records:,} records, got {found} and {records:,}"
            )

    def forget_worker(self) -> None:
        """Create anew the topics that a worker writes, so that no worker finds the state of an earlier one."""
        catalog = load_catalog(self.settings)
        written = [f"{self.topic}.dlq", *([catalog.rollup.state.name] if catalog.rollup else [])]
        client = AdminClient({**client_config(self.settings.kafka), "log_level": 0})
        for deleted in client.delete_topics(written, operation_timeout=_ADMIN_SECONDS).values():
            deleted.result(_ADMIN_SECONDS)
        admin = TopicAdmin(self.settings.kafka)
        while admin.ids(written):  # the broker answers before all of it is gone
            time.sleep(_POLL_SECONDS)
        create_topics(self.settings, catalog)


class _Tally:
    """Sums over the published events."""

    def __init__(self) -> None:
        self.rows = self._ts_sum = self._latency_sum = 0
        self._sessions: set[str] = set()

    def add(self, event: Mapping[str, Any]) -> None:
        self.rows += 1
        self._ts_sum += event["ts"]
        self._latency_sum += event["latency_ms"]
        self._sessions.add(event["session_id"])

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.rows, self._ts_sum, self._latency_sum, len(self._sessions))


def usual(events: int) -> Iterator[Event]:
    """Yield `ui_events` of one day, in order of time."""
    return sample(events, seed=_SEED, start=START, hours=_HOURS, families=[FAMILY])


def own_topics(
    settings: Settings,
    name: str,
    directory: Path,
    *,
    partitions: int | None = None,
    linger_seconds: float | None = None,
) -> Settings:
    """Settings with a topics.yaml of their own, in which `ui_events` and its state have names of their own.

    Args:
        settings: with the topics.yaml to start from.
        name: part of the topics' names.
        directory: for the file.
        partitions: of the topic of `ui_events`, instead of the usual number.
        linger_seconds: of its batch policy, instead of the usual time.
    """
    document = yaml.safe_load(settings.topics.file.read_text(encoding="utf-8"))
    topics = {}
    for topic, declared in document["topics"].items():
        if declared.get("family") == FAMILY:
            own = declared | ({"partitions": partitions} if partitions else {})
            if linger_seconds is not None:
                own["batch"] = {**declared.get("batch", {}), "linger_seconds": linger_seconds}
            topics[f"bench.{name}.{FAMILY}"] = own
        else:
            topics[f"bench.{name}.state" if declared.get("state_of") == FAMILY else topic] = declared
    file = directory / f"topics.{name}.yaml"
    file.write_text(yaml.safe_dump({**document, "topics": topics}), encoding="utf-8")
    return settings.model_copy(update={"topics": TopicsSettings(file=file, replication=settings.topics.replication)})


def create_topics(settings: Settings, catalog: Catalog) -> None:
    """Create the topics that the broker doesn't have yet."""
    admin = TopicAdmin(settings.kafka)
    admin.apply(plan(catalog.topics, admin.read([topic.name for topic in catalog.topics]), settings.topics.file))


def publish(
    settings: Settings,
    events: Iterable[Event],
    progress: Progress,
    reject_every: int | None = None,
    *,
    codec: str = "lz4",
) -> Workload:
    """Create the topics and publish the events: keyed, compressed, Confluent framing.

    Args:
        settings: of the broker and the topics.
        events: to publish.
        progress: called after each event.
        reject_every: number of events between two truncated records; None for no such record.
        codec: of the record batches.

    Raises:
        UnavailableError: the broker doesn't answer.
        HaltError: the broker refuses the topics.
        ContenderError: the broker refused an event.
    """
    family = (catalog := load_catalog(settings)).family(FAMILY)
    create_topics(settings, catalog)
    encoder, topic = Encoder(family, SCHEMA_ID), family.topic
    tally = _Tally()
    producer = RecordProducer(settings.kafka, {**_PRODUCER, "compression.type": codec})
    for _, event in events:
        key, value = encoder.encode(event)
        producer.produce(topic.name, value, key)
        tally.add(event)
        if reject_every and tally.rows % reject_every == 0:
            producer.produce(topic.name, _CUT_SHORT, key)
        if tally.rows % _PROGRESS_EVERY == 0:
            progress(tally.rows)
    producer.flush()
    progress(tally.rows)
    return _checked(settings, topic, tally, tally.rows // reject_every if reject_every else 0)


def _checked(settings: Settings, topic: TopicSpec, tally: _Tally, rejected: int) -> Workload:
    """The workload; a record that the broker refused would be missing."""
    topic_id = TopicAdmin(settings.kafka).ids([topic.name])[topic.name]
    workload = Workload(settings, topic.name, topic_id, topic.partitions, tally.fingerprint(), tally.rows + rejected)
    workload.check_topic()
    return workload
