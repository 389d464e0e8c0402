"""The oracle: it produces events, keeps account of each record, and judges the result."""

import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from support.kafka_requests import watermarks

from pipeline.catalog import Catalog, Family
from pipeline.clickhouse.client import connect
from pipeline.config import KafkaSettings, Settings
from pipeline.dlq.headers import HEADER_PREFIX
from pipeline.kafka.client import client_config
from pipeline.producer.encode import Encoder
from pipeline.producer.sample import sample
from pipeline.rollup.audit import Difference

REFUSED_DURATION = 4242
"""Duration in ms of a deployment that a constraint makes ClickHouse refuse."""

START = datetime(2026, 1, 31, tzinfo=UTC)
"""Beginning of event time."""

_HOURS = 60  # an insert writes parts for three days
_TEMPLATES = 40
DAMAGED = 0.03
"""Share of damaged events."""

_REFUSED = 0.005
SECONDS = 120
"""Patience with the broker."""


class Coordinates(NamedTuple):
    """Position of a record in Kafka."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}@{self.offset}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of the comparison."""

    events: int
    lost: Sequence[Coordinates] = ()
    """Records missing from their table or, if damaged, from the dead-letter topic."""
    duplicated: Sequence[Coordinates] = ()
    """Records that are stored more than once, or both stored and dead-lettered."""
    strangers: Sequence[str] = ()
    """Rows and dead letters of records that weren't produced."""
    late: int = 0
    """Number of late events in the rollup."""
    windows: int | None = None
    """Number of rows that session_stats must have; None if it isn't checked."""
    differences: Sequence[Difference] = ()
    """Differences of session_stats: rows that are missing, split, different, or of open windows."""

    @property
    def sound(self) -> bool:
        """True if nothing is lost, duplicated, unknown or different."""
        return not (self.lost or self.duplicated or self.strangers or self.differences)


@dataclass(slots=True)
class Produced:
    """Produced records of one family: valid events by identity, and damaged records."""

    valid: dict[uuid.UUID, Coordinates] = field(default_factory=dict)
    damaged: set[Coordinates] = field(default_factory=set)


def new_producer(settings: KafkaSettings, **config: str) -> Producer:
    """Return a producer that waits for all replicas and keeps the order; `config` has further options."""
    return Producer(
        {
            **client_config(settings),
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "message.timeout.ms": SECONDS * 1000,
            "log_level": 0,
            **config,
        }
    )


class Ledger:
    """Producer of events, with an account of every record.

    Each event has its own identity, in the key column of its family. Damaged events, and deployments that ClickHouse
    refuses, must become dead letters.

    Args:
        settings: broker and database.
        catalog: the families.
        seed: the same seed gives the same events.
    """

    def __init__(self, settings: Settings, catalog: Catalog, seed: int) -> None:
        self._settings = settings
        self._families = catalog.families
        self._random = random.Random(seed)
        self._templates = {family.name: _templates(family, seed) for family in catalog.families}
        self._encoders = {family.name: Encoder(family) for family in catalog.families}
        self._produced = {family.name: Produced() for family in catalog.families}
        self._account = self._produced
        self._ends: dict[tuple[str, int], int] = {}
        self._failures: list[KafkaError] = []
        self._producer = new_producer(settings.kafka)

    @property
    def events(self) -> int:
        """Number of produced records."""
        return sum(len(produced.valid) + len(produced.damaged) for produced in self._produced.values())

    @property
    def ends(self) -> Mapping[tuple[str, int], int]:
        """End offset of each topic and partition with records."""
        return dict(self._ends)

    def produce(self, family: Family, count: int, *, damaged: float = DAMAGED) -> None:
        """Publish events; the next `flush` waits for their delivery."""
        for _ in range(count):
            identity = self._identity()
            event = self._new_event(family, identity)
            refused = family.name == "deployments" and self._random.random() < _REFUSED
            if refused:
                event["duration_ms"] = REFUSED_DURATION
            key, value = self._encoders[family.name].encode(event)
            good = self._random.random() >= damaged
            self._send(family, key, value if good else self._damage(value), identity if good and not refused else None)

    def flush(self) -> None:
        """Wait until the broker has all published events."""
        assert self._producer.flush(SECONDS) == 0, "the broker doesn't accept the published events"
        assert not self._failures, self._failures[0]

    def judge(self) -> Verdict:
        """Compare tables and dead-letter topics with what was produced."""
        lost: list[Coordinates] = []
        duplicated: list[Coordinates] = []
        strangers: list[str] = []
        dead = self._dead_letters()
        for family in self._families:
            produced, rows = self._produced[family.name], self.rows(family)
            for identity, coordinates in produced.valid.items():
                copies = rows.pop(identity, 0)
                if copies == 0:
                    lost.append(coordinates)
                elif copies > 1 or coordinates in dead:
                    duplicated.append(coordinates)
            lost += produced.damaged - dead
            dead -= produced.damaged
            strangers += [f"{family.table}: {identity}" for identity in rows]
        valid = {at for produced in self._produced.values() for at in produced.valid.values()}
        strangers += [f"dead letter of {coordinates}" for coordinates in dead - valid]
        return Verdict(self.events, sorted(lost), sorted(duplicated), strangers)

    def coordinates(self, family: Family, identity: uuid.UUID) -> Coordinates:
        """Return the position of a valid event in Kafka."""
        return self._produced[family.name].valid[identity]

    def rows(self, family: Family) -> dict[uuid.UUID, int]:
        """Return the number of rows of each identity in the table."""
        with connect(self._settings.clickhouse) as client:
            return dict(client.execute(f"SELECT {family.key}, count() FROM {family.table} GROUP BY {family.key}"))

    def _new_event(self, family: Family, identity: uuid.UUID) -> dict[str, Any]:
        return {**self._random.choice(self._templates[family.name]), family.key: str(identity)}

    def _identity(self) -> uuid.UUID:
        return uuid.UUID(int=self._random.getrandbits(128), version=4)

    def _damage(self, value: bytes) -> bytes | None:
        return self._random.choice([None, b"", value[: len(value) // 2], value + b"\0", value[1:]])

    def _send(
        self, family: Family, key: bytes, value: bytes | None, identity: uuid.UUID | None, timestamp_ms: int = 0
    ) -> None:
        produced = self._account[family.name]

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._failures.append(error)
                return
            at = Coordinates(family.topic.name, _known(message.partition()), _known(message.offset()))
            self._ends[at[:2]] = max(self._ends.get(at[:2], 0), at.offset + 1)
            if identity is None:
                produced.damaged.add(at)
            else:
                produced.valid[identity] = at

        self._producer.produce(family.topic.name, value, key, on_delivery=delivered, timestamp=timestamp_ms)
        self._producer.poll(0)

    def _dead_letters(self) -> set[Coordinates]:
        """Return the coordinates of all dead-lettered records; a dead letter that was written twice counts once."""
        consumer = Consumer(
            {**client_config(self._settings.kafka), "group.id": f"{self._settings.kafka.group_id}-oracle"}
        )
        try:
            topics = consumer.list_topics(timeout=SECONDS).topics
            partitions = [
                TopicPartition(family.dead_letters.name, number, 0)
                for family in self._families
                for number in topics[family.dead_letters.name].partitions
            ]
            left = sum(watermarks(consumer, partition)[1] for partition in partitions)
            consumer.assign(partitions)
            found: set[Coordinates] = set()
            while left:
                messages = consumer.consume(min(left, 1000), SECONDS)
                assert messages, "dead letters can't be read"
                found.update(map(_source, messages))
                left -= len(messages)
            return found
        finally:
            consumer.close()


def _source(dead_letter: Message) -> Coordinates:
    """Return the position of a dead letter's original record."""
    headers = dict(dead_letter.headers() or [])
    topic, partition, offset = (headers[f"{HEADER_PREFIX}{name}"] for name in ("topic", "partition", "offset"))
    assert isinstance(topic, bytes)
    return Coordinates(topic.decode(), int(partition or 0), int(offset or 0))


def _known(number: int | None) -> int:
    assert number is not None
    return number


def _templates(family: Family, seed: int) -> list[dict[str, Any]]:
    return [event for _, event in sample(_TEMPLATES, seed=seed, start=START, hours=_HOURS, families=[family.name])]
