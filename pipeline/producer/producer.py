"""Publishes events to Kafka: checked before they are sent, placed as Java clients do, acknowledged or reported.

Records carry the time at which the broker gets them, not the event's: retention and a replay from a point in time go by
it, so an old event that is published today is kept as long as any other.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka.admin import AclOperation

from pipeline.catalog import Catalog, Family, load_catalog
from pipeline.config import Settings
from pipeline.errors import ChimeraError, UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import barred, check_connection, expect
from pipeline.kafka.topics import TopicAdmin
from pipeline.producer.encode import Encoder

_LINGER_MS = 50
_BATCH_BYTES = 1_000_000
_QUEUE_MESSAGES = 200_000
_POLL_SECONDS = 0.1
# ruff: noqa: SLF001 (librdkafka's own error codes are public under names with an underscore)
_UNAVAILABLE = frozenset(
    {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT, KafkaError._ALL_BROKERS_DOWN}
)
_UNKNOWN_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})

_SILENT = logging.getLogger("chimera.librdkafka")  # which has its say of what is fatal at every level
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


class DeliveryError(ChimeraError):
    """The broker refused events; names the topic and Kafka's error code."""


class _Route(NamedTuple):
    """Where a family's events go, and how they are written."""

    topic: str
    encoder: Encoder


class Producer:
    """A client that publishes events of any family. Use it as a context manager: leaving it waits for all deliveries.

    Within one producer, the events of a key keep their order and none is stored twice by a retry. A failed delivery is
    raised by the next call of any method.

    Args:
        settings: broker, registry, topics and schemas.
        catalog: in place of the one that the settings name.
        timeout_seconds: how long a broker may be silent before events count as undelivered.
    """

    def __init__(self, settings: Settings, catalog: Catalog | None = None, *, timeout_seconds: float = 30.0) -> None:
        self._settings = settings
        self._catalog = catalog or load_catalog(settings)
        self._timeout_seconds = timeout_seconds
        self._routes: dict[str, _Route] = {}
        self._failure: ChimeraError | None = None
        self._producer = KafkaProducer(self._config())
        self._topics = TopicAdmin(settings.kafka)

    def send(self, family: str, event: Mapping[str, Any]) -> None:
        """Check an event and hand it over for delivery; waits while the queue of undelivered events is full.

        Args:
            family: name of the event's family.
            event: field to value, as `Encoder.encode` takes it.

        Raises:
            InvalidEventError: the worker would reject the event; it isn't sent.
            UnavailableError: broker or registry doesn't answer.
            DeliveryError: the broker refused this event or one before it, or has no such topic.
            ConfigError: there is no such family.
        """
        self._raise_failure()
        route = self._routes.get(family) or self._open(family)
        key, value = route.encoder.encode(event)
        while not self._queued(route.topic, key, value):
            self._serve(self._producer.poll, _POLL_SECONDS)
            self._raise_failure()
        self._serve(self._producer.poll, 0)

    def flush(self) -> None:
        """Wait until every event is stored by the broker, in all replicas that are in sync.

        Raises:
            UnavailableError: the broker has been silent for too long.
            DeliveryError: the broker refused an event.
        """
        while self._serve(self._producer.flush, _POLL_SECONDS):
            pass
        self._raise_failure()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.flush()
        else:  # what was sent is still delivered where possible, but the failure under way is the one to report
            with suppress(KafkaException):
                self._producer.flush(self._timeout_seconds)

    def _config(self) -> dict[str, Any]:
        limits = [family.topic.max_message_bytes for family in self._catalog.families]
        return {
            **client_config(self._settings.kafka),
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "lz4",
            "partitioner": "murmur2_random",
            "linger.ms": _LINGER_MS,
            "batch.size": min(_BATCH_BYTES, *limits),
            "message.max.bytes": max(limits),
            "message.timeout.ms": round(self._timeout_seconds * 1000),
            "queue.buffering.max.messages": _QUEUE_MESSAGES,
            "delivery.report.only.error": True,
            "on_delivery": self._delivered,
            "log_level": 0,  # what goes wrong is raised
            "logger": _SILENT,
        }

    def _open(self, name: str) -> _Route:
        """Look the family's topic up, once: an event for a topic that isn't there would wait until it times out."""
        family = self._catalog.family(name)
        topic = family.topic.name
        check_connection(self._settings.kafka)
        rights = self._topics.rights([topic])
        if topic not in rights:
            raise self._explain(topic, KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        expect(AclOperation.WRITE, rights[topic], self._settings.kafka, f"topic {topic}")
        route = self._routes[name] = _Route(topic, Encoder(family, self._schema_id(family)))
        return route

    def _schema_id(self, family: Family) -> int | None:
        if self._settings.registry.url is None:
            return None
        from pipeline.kafka.registry import SchemaRegistry  # noqa: PLC0415 (slow to import, and only some have a registry)

        return SchemaRegistry(self._settings.registry).schema_id(family.topic.name, family.schema)

    def _queued(self, topic: str, key: bytes, value: bytes) -> bool:
        try:
            self._producer.produce(topic, value, key)
        except BufferError:
            return False
        except KafkaException as error:
            raise self._explain(topic, error.args[0]) from None
        return True

    def _serve(self, wait: Callable[[float], int], seconds: float) -> int:
        """Wait for deliveries; raises what no delivery comes after, such as a right that was taken away."""
        try:
            return wait(seconds)
        except KafkaException as error:
            raise self._explain("all topics", error.args[0]) from None

    def _delivered(self, error: KafkaError | None, message: KafkaMessage) -> None:
        if error is not None and self._failure is None:
            self._failure = self._explain(message.topic(), error)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _explain(self, topic: str | None, error: KafkaError) -> ChimeraError:
        if why := barred(error, self._settings.kafka, f"WRITE on topic {topic}"):
            return why
        if error.code() in _UNAVAILABLE:
            return UnavailableError(
                f"Kafka at {self._settings.kafka.bootstrap_servers} is not available: {error.str()}"
            )
        if error.code() in _UNKNOWN_TOPIC:
            return DeliveryError(f"{topic}: no such topic ({error.name()}); create it with: chimera topics apply")
        return DeliveryError(f"{topic}: delivery refused: {error.name()} ({error.str()})")
