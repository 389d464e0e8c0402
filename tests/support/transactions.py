"""A producer with transactions: sends records, then commits or aborts them."""

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaError, Message, Producer

from pipeline.config import KafkaSettings
from pipeline.kafka.client import client_config

_SECONDS = 120.0

Pair = tuple[bytes | None, bytes | None]
"""Key and value of a record."""


class TransactionalProducer:
    """Producer of one transactional id, with one transaction at a time; leaving the context aborts an open one.

    Another producer of the same id fences this one off, and its transaction is aborted.

    Args:
        kafka: the broker.
        name: the transactional id.
        **options: further properties of librdkafka, with underscores for dots: `transaction_timeout_ms=...`.
    """

    def __init__(self, kafka: KafkaSettings, name: str, **options: str | int) -> None:
        given = {key.replace("_", "."): value for key, value in options.items()}
        self._producer = Producer({**client_config(kafka), "transactional.id": name, "linger.ms": 5, **given})
        self._producer.init_transactions(_SECONDS)
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        if self._open:
            self.abort()

    def send(self, topic: str, records: Iterable[Pair], partition: int = 0) -> list[int]:
        """Send records, and return their offsets; the transaction stays open, and is begun if there is none."""
        offsets: list[int] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            offsets.append(message.offset() or 0)

        if not self._open:
            self._producer.begin_transaction()
            self._open = True
        for key, value in records:
            self._producer.produce(topic, value, key, partition, on_delivery=delivered)
        assert self._producer.flush(_SECONDS) == 0
        return offsets

    def commit(self) -> None:
        """Commit the open transaction: its records count. Its markers are written within moments."""
        self._producer.commit_transaction(_SECONDS)
        self._open = False

    def abort(self) -> None:
        """Abort the open transaction: its records never count."""
        self._producer.abort_transaction(_SECONDS)
        self._open = False


def values(numbers: Iterable[int]) -> list[Pair]:
    """Return records without a key whose values are these numbers."""
    return [(None, b"%d" % number) for number in numbers]
