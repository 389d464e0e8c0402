"""Write dead letters: a rejected record goes to `<topic>.dlq` unchanged, with headers that say what was wrong with it.

Key, value and headers of the record are untouched; the worker's headers follow them. The broker gives a dead letter its
own time, so retention keeps it from the rejection on, however old its record is. A worker that dies before its commit
leaves dead letters that are written twice; their coordinates are the same.

Anybody can write a record that is too large for the dead-letter topic once the worker's headers are added, and it must
not block its partition. Then the record's headers are left out, or its key and value as well. A header says so, with
size and hash. The whole record stays in its source topic for as long as that keeps records.
"""

import enum
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from typing import NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException, Message

from pipeline.catalog import Family
from pipeline.columns import Rejection
from pipeline.config import KafkaSettings
from pipeline.dlq.headers import CUT_PREFIX, HEADER_PREFIX, attempts_of
from pipeline.dlq.written import dead_positions
from pipeline.errors import HaltError, UnavailableError
from pipeline.kafka.failures import NO_TOPIC, explain_refusal, missing_topic
from pipeline.kafka.producing import RecordProducer
from pipeline.kafka.topics import compacted_topic
from pipeline.retry import coordinates
from pipeline.schema.framing import schema_name
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.records import Record

_TIMEOUT_SECONDS = 5.0
_ANY_BYTES = 1_000_000_000
_VERSION = version("chimera-pipeline")
_log = structlog.get_logger("chimera.dead_letters")


class DeadLetters:
    """Writes dead letters, from one thread at a time: the thread of `pool`.

    Args:
        settings: the broker.
        families: owners of the dead letters.
    """

    def __init__(self, settings: KafkaSettings, families: Iterable[Family]) -> None:
        self._topics = {family.topic.name: family.dead_letters for family in families}
        self._settings = settings
        self._connected: RecordProducer | None = None
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="dead-letters")

    def send(self, batch: MicroBatch, rejections: Sequence[Rejection]) -> None:
        """Write the rejected records of a micro-batch; return when all in-sync replicas have all of them.

        Raises:
            UnavailableError: the broker hasn't stored all of them; another try may write some twice.
            HaltError: the broker refuses the login or the write.
        """
        topic, left = self._topics[batch.topic], rejections
        for cut in Cut:
            too_large = []
            for rejection, error in self._write(batch, left, cut):
                # A smaller dead letter is only refused if the topic differs from its declaration.
                if error.code() != KafkaError.MSG_SIZE_TOO_LARGE or (
                    next(_letters(batch, [rejection], cut)).size <= topic.max_message_bytes
                ):
                    self._connected = None  # a new producer asks anew for brokers and topics
                    why = explain_refusal(error, self._settings, f"WRITE on topic {topic.name}")
                    raise why or UnavailableError(self._explain(topic.name, error))
                too_large.append(rejection)
            left = too_large
            if not left:
                return
            _log.warning("dead letters are too large, leaving out a part", **coordinates(batch), records=len(left))

    def written_before(self, batch: MicroBatch) -> set[int]:
        """Return the positions of the records that have a dead letter already; may be called from any thread.

        Raises:
            UnavailableError: the broker doesn't answer.
        """
        try:
            return dead_positions(self._settings, self._topics[batch.topic].name, batch)
        except HaltError as error:
            _log.warning("dead letters can't be read, records may become rows as well", why=str(error))
            return set()

    def _write(
        self, batch: MicroBatch, rejections: Sequence[Rejection], cut: "Cut"
    ) -> list[tuple[Rejection, KafkaError]]:
        """Write dead letters; return the failed ones with their errors."""
        failures: list[tuple[Rejection, KafkaError]] = []

        def delivered(rejection: Rejection, error: KafkaError | None, _: Message | None) -> None:
            if error is not None:
                failures.append((rejection, error))

        topic, producer = self._topics[batch.topic].name, self._producer()
        try:
            for rejection, letter in zip(rejections, _letters(batch, rejections, cut), strict=True):
                key, value, headers = letter
                producer.produce(topic, value, key, headers=headers, delivered=partial(delivered, rejection))
            producer.flush()
        except KafkaException as error:
            failures.append((rejections[-1], error.args[0]))
        return failures

    def _producer(self) -> RecordProducer:
        """Return the producer; the first dead letter connects it."""
        if self._connected is None:
            options = {
                "acks": "all",
                "compression.type": "zstd",  # the topic may have accepted the record only because it compresses well
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "batch.size": min(topic.max_message_bytes for topic in self._topics.values()) // 2,
                "message.max.bytes": _ANY_BYTES,  # the broker checks it, and counts compressed bytes
                "topic.metadata.propagation.max.ms": 1000,  # a missing topic is reported after this
            }
            self._connected = RecordProducer(self._settings, options, timeout_seconds=_TIMEOUT_SECONDS)
        return self._connected

    def _explain(self, topic: str, error: KafkaError) -> str:
        if error.code() in NO_TOPIC:
            return f"dead letters can't be written: {missing_topic(self._settings, topic)}"
        if error.code() == KafkaError.INVALID_RECORD:
            return f"dead letters can't be written: {compacted_topic(self._settings, topic)}"
        what = f"Kafka at {self._settings.bootstrap_servers}: {topic} can't be written: {error.str()}"
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return f"{what}; raise dead_letters.max_message_bytes in topics.yaml, then `chimera topics apply`"
        return what


class Cut(enum.Enum):
    """Parts that are left out of a dead letter that is too large."""

    NOTHING = 0
    HEADERS = 1
    ALL = 2


class DeadLetter(NamedTuple):
    """Key, value and headers of a dead letter."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]]

    @property
    def size(self) -> int:
        """Bytes, before compression."""
        return len(self.key or b"") + len(self.value or b"") + len(_bytes_of(self.headers))


def _letters(batch: MicroBatch, rejections: Sequence[Rejection], cut: Cut) -> Iterator[DeadLetter]:
    """Make the dead letter of each rejection, one at a time."""
    records = batch.records_at([rejection.position for rejection in rejections])
    for rejection, record in zip(rejections, records, strict=True):
        yield dead_letter(batch, rejection, record, cut)


def dead_letter(batch: MicroBatch, rejection: Rejection, record: Record, cut: Cut = Cut.NOTHING) -> DeadLetter:
    """Make the dead letter of a record: the record, then headers with reason, place and attempts, never its content."""
    left_out: dict[str, bytes] = {}
    if cut is not Cut.NOTHING:
        left_out["headers"] = _bytes_of(record.headers)
    if cut is Cut.ALL:
        left_out |= {"key": record.key or b"", "value": record.value or b""}
    facts = {
        "reason": rejection.reason.value,
        "detail": rejection.detail,
        "topic": batch.topic,
        "partition": str(batch.partition),
        "offset": str(record.offset),
        "timestamp": str(record.timestamp),
        "schema": schema_name(record.value or b""),
        "attempts": str(attempts_of(record.headers) + 1),
        "version": _VERSION,
        "failed_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        **{
            f"{CUT_PREFIX.removeprefix(HEADER_PREFIX)}{name}": f"{len(part)} bytes, sha256 {sha256(part).hexdigest()}"
            for name, part in left_out.items()
        },
    }
    ours: list[tuple[str, str | bytes | None]] = [
        (f"{HEADER_PREFIX}{name}", fact.encode()) for name, fact in facts.items()
    ]
    return DeadLetter(
        None if "key" in left_out else record.key,
        None if "value" in left_out else record.value,
        ours if "headers" in left_out else [*record.headers, *ours],
    )


def _bytes_of(headers: Iterable[tuple[str, str | bytes | None]]) -> bytes:
    """Concatenate names and values."""
    parts = (part or b"" for header in headers for part in header)
    return b"".join(part.encode() if isinstance(part, str) else part for part in parts)
