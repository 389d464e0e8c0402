"""Dead letters: what can't be stored goes to `<topic>.dlq` as it came, with headers that say what was wrong with it.

The original key, value and headers are untouched; ours follow them, prefixed `chimera.error.`, the reason first. The
broker gives a dead letter a time of its own: it is kept from the rejection on, however old its record is. A dead letter
may be written twice, when a worker dies before it could say that it was done: its coordinates tell.

Whoever can write a record can write one that is too large for the dead-letter topic with what we add, and that must not
hold its partition up. Of such a record the headers are left out, or key and value as well, and a header says so, with
size and hash; the whole of it stays in its source topic for as long as that keeps records.
"""

import enum
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from typing import NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as KafkaProducer

from pipeline.catalog import Family
from pipeline.columns import Rejection
from pipeline.config import KafkaSettings
from pipeline.errors import UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import barred
from pipeline.schema.framing import schema_name
from pipeline.transport.batches import MicroBatch

HEADER_PREFIX = "chimera.error."
REASON = f"{HEADER_PREFIX}reason"
"""The first of ours: what a record itself came with stands before it."""
ATTEMPTS = f"{HEADER_PREFIX}attempts"
CUT_PREFIX = f"{HEADER_PREFIX}cut."
"""Of the headers that say what was left out: `headers`, `key`, `value`."""

_TIMEOUT_SECONDS = 5.0
_ANY_BYTES = 1_000_000_000
_VERSION = version("chimera-pipeline")
_A_COUNT = re.compile(rb"[0-9]{1,9}")  # anybody can write such a header
_log = structlog.get_logger("chimera.dead_letters")

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
            HaltError: it doesn't let us in, or we may not write there.
        """
        topic, left = self._topics[batch.topic], rejections
        for cut in Cut:
            too_large = []
            for rejection, error in self._write(batch, left, cut):
                # One that is no larger than was declared is refused because the topic isn't as declared.
                if error.code() != KafkaError.MSG_SIZE_TOO_LARGE or (
                    dead_letter(batch, rejection, cut).size <= topic.max_message_bytes
                ):
                    self._connected = None  # the next one starts without what this one believes of broker and topics
                    why = barred(error, self._settings, f"WRITE on topic {topic.name}")
                    raise why or UnavailableError(self._explain(topic.name, error))
                too_large.append(rejection)
            left = too_large
            if not left:
                return
            _log.warning("dead letters are too large, leaving out a part", batch=repr(batch), records=len(left))

    def _write(
        self, batch: MicroBatch, rejections: Sequence[Rejection], cut: "Cut"
    ) -> list[tuple[Rejection, KafkaError]]:
        """Write these; returns which couldn't be, and why."""
        failures: list[tuple[Rejection, KafkaError]] = []

        def delivered(rejection: Rejection, error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append((rejection, error))

        topic, producer = self._topics[batch.topic].name, self._producer()
        for rejection in rejections:
            try:
                _produce(producer, topic, dead_letter(batch, rejection, cut), partial(delivered, rejection))
            except KafkaException as error:
                failures.append((rejection, error.args[0]))
        producer.flush()
        return failures

    def _producer(self) -> KafkaProducer:
        """Connected when there is a first dead letter."""
        if self._connected is None:
            self._connected = KafkaProducer(
                {
                    **client_config(self._settings),
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


class Cut(enum.Enum):
    """What is left out of a dead letter that is too large."""

    NOTHING = 0
    HEADERS = 1
    ALL = 2


class DeadLetter(NamedTuple):
    """What is written."""

    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def size(self) -> int:
        """Bytes, before compression."""
        return len(self.key or b"") + len(self.value or b"") + len(_bytes_of(self.headers))


def _produce(producer: KafkaProducer, topic: str, letter: DeadLetter, delivered: Delivered) -> None:
    while True:
        try:
            producer.produce(topic, **letter._asdict(), on_delivery=delivered)
        except BufferError:
            producer.poll(0.1)
        else:
            return


def dead_letter(batch: MicroBatch, rejection: Rejection, cut: Cut = Cut.NOTHING) -> DeadLetter:
    """The record; its headers, then ours: what was wrong, where it was, which try this was; nothing of the value."""
    record = batch.records[rejection.position]
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
    ours: Headers = [(f"{HEADER_PREFIX}{name}", fact.encode()) for name, fact in facts.items()]
    return DeadLetter(
        None if "key" in left_out else record.key,
        None if "value" in left_out else record.value,
        ours if "headers" in left_out else [*record.headers, *ours],
    )


def _bytes_of(headers: Iterable[tuple[str, str | bytes | None]]) -> bytes:
    """Names and values, one after the other."""
    parts = (part or b"" for header in headers for part in header)
    return b"".join(part.encode() if isinstance(part, str) else part for part in parts)


def attempts_of(headers: Sequence[tuple[str, bytes | None]]) -> int:
    """How often a record has become a dead letter before: what the last header of that name says."""
    said = [value for name, value in headers if name == ATTEMPTS and value is not None and _A_COUNT.fullmatch(value)]
    return int(said[-1]) if said else 0
