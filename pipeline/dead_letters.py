"""Dead letters: what can't be stored goes to `<topic>.dlq` as it came, with headers that say what was wrong with it.

The original key, value, headers and timestamp are untouched; ours are added, prefixed `chimera.error.`. A dead letter
may be written twice, when a worker dies before it could say that it was done: its coordinates tell.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as KafkaProducer

from pipeline.batches import MicroBatch, Record
from pipeline.columns import Rejection
from pipeline.config import KafkaSettings
from pipeline.errors import UnavailableError
from pipeline.families import Family
from pipeline.wire import schema_name

HEADER_PREFIX = "chimera.error."
ATTEMPTS = f"{HEADER_PREFIX}attempts"

_TIMEOUT_SECONDS = 20.0
_VERSION = version("chimera-pipeline")

Headers = list[tuple[str, str | bytes | None]]
Delivered = Callable[[KafkaError | None, Message], None]


class DeadLetters:
    """Writes dead letters; may be used from several threads at once.

    Args:
        settings: the broker.
        families: whose dead letters these are.
    """

    def __init__(self, settings: KafkaSettings, families: Iterable[Family]) -> None:
        self._topics = {family.topic.name: family.dead_letters for family in families}
        self._address = settings.bootstrap_servers
        self._producer = KafkaProducer(
            {
                **settings.client,
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "message.max.bytes": max(topic.max_message_bytes for topic in self._topics.values()),
                "message.timeout.ms": round(_TIMEOUT_SECONDS * 1000),
                "log_level": 0,  # what goes wrong is raised
            }
        )

    def send(self, batch: MicroBatch, rejections: Iterable[Rejection]) -> None:
        """Write the rejected records of a micro-batch; returns when all replicas in sync have all of them.

        Raises:
            UnavailableError: the broker didn't take all of them; worth another try, which may write some twice.
        """
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        topic = self._topics[batch.topic].name
        for rejection in rejections:
            record = batch.records[rejection.position]
            headers = [*record.headers, *_error_headers(batch, record, rejection)]
            self._produce(topic, record, headers, delivered)
        self._producer.flush()
        if failures:
            raise UnavailableError(f"Kafka at {self._address}: {topic} can't be written: {failures[0].str()}")

    def _produce(self, topic: str, record: Record, headers: Headers, delivered: Delivered) -> None:
        while True:
            try:
                self._producer.produce(
                    topic, record.value, record.key, timestamp=record.timestamp, headers=headers, on_delivery=delivered
                )
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise UnavailableError(
                    f"Kafka at {self._address}: {topic} can't be written: {error.args[0].str()}"
                ) from error
            else:
                return


def _error_headers(batch: MicroBatch, record: Record, rejection: Rejection) -> Headers:
    """What was wrong, where it was, and which try this was; never anything of the value."""
    facts = {
        "reason": rejection.reason.value,
        "detail": rejection.detail,
        "topic": batch.topic,
        "partition": str(batch.partition),
        "offset": str(record.offset),
        "schema": schema_name(record.value or b""),
        "attempts": str(attempts_of(record.headers) + 1),
        "version": _VERSION,
        "failed_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    return [(f"{HEADER_PREFIX}{name}", fact.encode()) for name, fact in facts.items()]


def attempts_of(headers: Sequence[tuple[str, bytes | None]]) -> int:
    """How often a record has become a dead letter before: what the last header of that name says."""
    said = [value for name, value in headers if name == ATTEMPTS and value is not None and value.isdigit()]
    return int(said[-1]) if said else 0
