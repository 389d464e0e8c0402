"""Dead letters: what can't be stored goes to `<topic>.dlq` as it came, with headers that say what was wrong with it.

The original key, value, headers and timestamp are untouched; ours are added, prefixed `chimera.error.`. A dead letter
may be written twice, when a worker dies before it could say that it was done: its coordinates tell.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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

_TIMEOUT_SECONDS = 5.0
_ANY_BYTES = 1_000_000_000
_VERSION = version("chimera-pipeline")

Headers = list[tuple[str, str | bytes | None]]
Delivered = Callable[[KafkaError | None, Message], None]


class DeadLetters:
    """Writes dead letters, from one thread at a time: that of `pool`.

    Args:
        settings: the broker.
        families: whose dead letters these are.
    """

    def __init__(self, settings: KafkaSettings, families: Iterable[Family]) -> None:
        self._topics = {family.topic.name: family.dead_letters for family in families}
        self._settings = settings
        self._connected: KafkaProducer | None = None
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="dead-letters")

    def send(self, batch: MicroBatch, rejections: Sequence[Rejection]) -> None:
        """Write the rejected records of a micro-batch; returns when all replicas in sync have all of them.

        Raises:
            UnavailableError: the broker didn't take all of them; worth another try, which may write some twice.
        """
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        topic, producer = self._topics[batch.topic].name, self._producer()
        try:
            for rejection in rejections:
                record = batch.records[rejection.position]
                _produce(producer, topic, record, dead_letter_headers(batch, rejection), delivered)
        except KafkaException as error:
            failures.append(error.args[0])
        producer.flush()
        if failures:
            self._connected = None  # the next one starts without what this one believes of broker and topics
            raise UnavailableError(self._explain(topic, failures[0]))

    def _producer(self) -> KafkaProducer:
        """Connected when there is a first dead letter."""
        if self._connected is None:
            self._connected = KafkaProducer(
                {
                    **self._settings.client,
                    "acks": "all",
                    "compression.type": "zstd",  # the record may have been let in because it compresses well
                    "partitioner": "murmur2_random",
                    "linger.ms": 5,
                    "batch.size": min(topic.max_message_bytes for topic in self._topics.values()) // 2,
                    "message.max.bytes": _ANY_BYTES,  # the broker knows, and counts what is compressed
                    "topic.metadata.propagation.max.ms": 1000,  # then a topic that isn't there is said to be missing
                    "message.timeout.ms": round(_TIMEOUT_SECONDS * 1000),
                    "log_level": 0,  # what goes wrong is raised
                }
            )
        return self._connected

    def _explain(self, topic: str, error: KafkaError) -> str:
        what = f"Kafka at {self._settings.bootstrap_servers}: {topic} can't be written: {error.str()}"
        match error.code():
            case KafkaError.MSG_SIZE_TOO_LARGE:
                return f"{what}; raise dead_letters.max_message_bytes in topics.yaml, then `chimera topics apply`"
            case KafkaError.UNKNOWN_TOPIC_OR_PART | KafkaError._UNKNOWN_TOPIC:  # noqa: SLF001 (the client's own code)
                return f"{what}; create it with `chimera topics apply`"
        return what


def _produce(producer: KafkaProducer, topic: str, record: Record, headers: Headers, delivered: Delivered) -> None:
    while True:
        try:
            producer.produce(
                topic, record.value, record.key, timestamp=record.timestamp, headers=headers, on_delivery=delivered
            )
        except BufferError:
            producer.poll(0.1)
        else:
            return


def dead_letter_headers(batch: MicroBatch, rejection: Rejection) -> Headers:
    """The record's own headers, then ours: what was wrong, where it was, which try this was; nothing of the value."""
    record = batch.records[rejection.position]
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
    return [*record.headers, *((f"{HEADER_PREFIX}{name}", fact.encode()) for name, fact in facts.items())]


def attempts_of(headers: Sequence[tuple[str, bytes | None]]) -> int:
    """How often a record has become a dead letter before: what the last header of that name says."""
    said = [value for name, value in headers if name == ATTEMPTS and value is not None and value.isdigit()]
    return int(said[-1]) if said else 0
