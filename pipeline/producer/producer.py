"""Publish events to Kafka: each is checked first, then stored by the broker or reported.

Keys choose partitions as Java clients do. Records carry the time at which the broker gets them, not the event's time:
retention and replay use the record's time, so an old event that is published today is kept as long as any other.
"""

from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage
from confluent_kafka.admin import AclOperation

from pipeline.catalog import Catalog, Family, load_catalog
from pipeline.config import Settings
from pipeline.errors import ChimeraError, UnavailableError
from pipeline.kafka.failures import NO_TOPIC, check_connection, check_granted, explain_refusal, missing_topic
from pipeline.kafka.producing import RecordProducer
from pipeline.kafka.registry import registry_of
from pipeline.kafka.topics import TopicAdmin
from pipeline.producer.encode import Encoder

_LINGER_MS = 50
_BATCH_BYTES = 1_000_000
_QUEUE_MESSAGES = 200_000
# ruff: noqa: SLF001 (librdkafka's own error codes are public under names with an underscore)
_UNAVAILABLE = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._QUEUE_FULL,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
    }
)


class DeliveryError(ChimeraError):
    """The broker refused events; the message names the topic and Kafka's error code."""


class _Route(NamedTuple):
    """Topic and encoder of a family."""

    topic: str
    encoder: Encoder


class Producer:
    """A client that publishes events of any family. Use it as a context manager: leaving it waits for all deliveries.

    Within one producer, events of a key keep their order, and a retry stores none twice. The next call of any method
    raises a failed delivery.

    Args:
        settings: broker, registry, topics and schemas.
        catalog: families; defaults to the catalog that the settings name.
        timeout_seconds: longest wait for the delivery of an event.
    """

    def __init__(self, settings: Settings, catalog: Catalog | None = None, *, timeout_seconds: float = 30.0) -> None:
        self._settings = settings
        self._catalog = catalog or load_catalog(settings)
        self._routes: dict[str, _Route] = {}
        self._failure: ChimeraError | None = None
        self._producer = RecordProducer(
            settings.kafka, self._options(), timeout_seconds=timeout_seconds, waiting=self._raise_failure
        )
        self._topics = TopicAdmin(settings.kafka)

    def send(self, family: str, event: Mapping[str, Any]) -> None:
        """Check an event and queue it for delivery; wait while the queue is full.

        Args:
            family: name of the event's family.
            event: values by field name, as in `Encoder.encode`.

        Raises:
            InvalidEventError: the worker would reject the event; it isn't sent.
            UnavailableError: the broker or the registry doesn't answer.
            DeliveryError: the broker refused this event or an earlier one, or has no such topic.
            ConfigError: there is no such family.
        """
        self._raise_failure()
        route = self._routes.get(family) or self._open(family)
        key, value = route.encoder.encode(event)
        try:
            self._producer.produce(route.topic, value, key)
        except KafkaException as error:
            raise self._explain(route.topic, error.args[0]) from None

    def flush(self) -> None:
        """Wait until all in-sync replicas have every event.

        Raises:
            UnavailableError: the broker didn't answer in time.
            DeliveryError: the broker refused an event.
        """
        try:
            self._producer.flush()
        except KafkaException as error:  # for example for a lost right: librdkafka then reports no delivery
            raise self._explain("all topics", error.args[0]) from None
        self._raise_failure()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.flush()
        else:  # deliver the queued events if possible; the exception under way is the one to report
            with suppress(KafkaException):
                self._producer.flush()

    def _options(self) -> dict[str, Any]:
        limits = [family.topic.max_message_bytes for family in self._catalog.families]
        return {
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "lz4",
            "partitioner": "murmur2_random",
            "linger.ms": _LINGER_MS,
            "batch.size": min(_BATCH_BYTES, *limits),
            "message.max.bytes": max(limits),
            "queue.buffering.max.messages": _QUEUE_MESSAGES,
            "delivery.report.only.error": True,
            "on_delivery": self._delivered,
        }

    def _open(self, name: str) -> _Route:
        """Check once that the family's topic exists and may be written; otherwise events would time out."""
        family = self._catalog.family(name)
        topic = family.topic.name
        check_connection(self._settings.kafka)
        rights = self._topics.rights([topic])
        if topic not in rights:
            raise DeliveryError(missing_topic(self._settings.kafka, topic))
        check_granted(AclOperation.WRITE, rights[topic], self._settings.kafka, f"topic {topic}")
        route = self._routes[name] = _Route(topic, Encoder(family, self._schema_id(family)))
        return route

    def _schema_id(self, family: Family) -> int | None:
        registry = registry_of(self._settings.registry)
        return None if registry is None else registry.schema_id(family.topic.name, family.schema)

    def _delivered(self, error: KafkaError | None, message: KafkaMessage) -> None:
        if error is not None and self._failure is None:
            self._failure = self._explain(message.topic(), error)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _explain(self, topic: str | None, error: KafkaError) -> ChimeraError:
        if why := explain_refusal(error, self._settings.kafka, f"WRITE on topic {topic}"):
            return why
        if error.code() in _UNAVAILABLE:
            return UnavailableError(
                f"Kafka at {self._settings.kafka.bootstrap_servers} is not available: {error.str()}"
            )
        if error.code() in NO_TOPIC:
            return DeliveryError(missing_topic(self._settings.kafka, topic or ""))
        return DeliveryError(f"{topic}: delivery refused: {error.name()} ({error.str()})")
