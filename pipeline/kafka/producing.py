"""Produce records with confluent-kafka: wait for room in the queue, learn each outcome, flush with a deadline."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.config import KafkaSettings
from pipeline.kafka.client import client_config

_POLL_SECONDS = 0.1
_EXPIRY_SECONDS = 5.0  # librdkafka looks for expired records once a second
# ruff: noqa: SLF001 (librdkafka's own error codes are public under names with an underscore)

_SILENT = logging.getLogger("chimera.librdkafka")  # not logged: librdkafka's fatal errors, which are raised
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False

Delivered = Callable[[KafkaError | None, Message | None], None]
"""Called with the error, or None, and the record as the broker stored it; the record is None if it was never sent."""


class RecordProducer:
    """A client that produces records, and reports each one that the broker doesn't store.

    Args:
        settings: the broker.
        options: librdkafka's properties beyond the connection.
        timeout_seconds: longest wait for a delivery; `produce` and `flush` wait at most 5 s longer.
        waiting: called while `produce` waits for room; an exception ends the wait.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        options: Mapping[str, Any],
        *,
        timeout_seconds: float = 30.0,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self._limit = timeout_seconds + _EXPIRY_SECONDS
        self._waiting = waiting
        self._client = Producer(
            {
                **client_config(settings),
                **options,
                "message.timeout.ms": round(timeout_seconds * 1000),
                "log_level": 0,
                "logger": _SILENT,
            }
        )

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        *,
        partition: int = -1,
        headers: Sequence[tuple[str, str | bytes | None]] = (),
        delivered: Delivered | None = None,
    ) -> None:
        """Queue a record; wait while the queue is full.

        Args:
            topic: name of the topic.
            value: value of the record.
            key: key of the record; it chooses the partition.
            partition: number of the partition; -1 leaves the choice to the key.
            headers: headers of the record, in their order.
            delivered: called once with the outcome, by `produce`, `poll` or `flush`.

        Raises:
            KafkaException: the producer has failed for good; or, without `delivered`, the record is refused at once.
        """
        options: dict[str, Any] = {"partition": partition}
        if headers:
            options["headers"] = [*headers]
        if delivered:
            options["on_delivery"] = delivered
        try:
            self._queue(topic, value, key, options)
        except KafkaException as error:
            if delivered is None:
                raise
            delivered(error.args[0], None)
        self._client.poll(0)

    def poll(self, seconds: float) -> None:
        """Wait for outcomes, no longer than this.

        Raises:
            KafkaException: the producer has failed for good.
        """
        self._client.poll(seconds)

    def flush(self) -> None:
        """Wait until every record has its outcome.

        Raises:
            KafkaException: the producer has failed for good, or some outcomes are still missing after the timeout.
        """
        if self._client.flush(self._limit):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def partitions(self, topic: str, seconds: float) -> int:
        """Return the number of partitions of a topic.

        Raises:
            KafkaException: the broker doesn't answer, or has no such topic.
        """
        found = self._client.list_topics(topic, seconds).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return len(found.partitions)

    def _queue(self, topic: str, value: bytes | None, key: bytes | None, options: Mapping[str, Any]) -> None:
        deadline: float | None = None
        while True:
            try:
                self._client.produce(topic, value, key, **options)
            except BufferError:
                deadline = deadline or time.monotonic() + self._limit
                if time.monotonic() > deadline:
                    raise KafkaException(KafkaError(KafkaError._QUEUE_FULL)) from None
                self._client.poll(_POLL_SECONDS)
                self._waiting()
            else:
                return
