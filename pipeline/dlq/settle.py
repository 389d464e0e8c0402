"""Settles dead letters: sends their records back to the source topic, or drops them, and leaves receipts.

A dead letter is requeued once, though a run may break off anywhere, and two may run at once. A run claims dead letters
first, by a receipt in their partition of the dead-letter topic: whose claim lies first in the log has them for
`CLAIM_SECONDS`. Then it produces the records, each with the id of its dead letter, and writes the receipt that it has.
Where a claim was left without that, the next run looks for the id in the source topic, from where it ended at the time
of the first claim, and produces only what isn't there.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as KafkaProducer

from pipeline.config import KafkaSettings
from pipeline.dlq.letters import REQUEUED, Headers, Letter, Record, requeued_headers
from pipeline.dlq.log import Log
from pipeline.dlq.reading import Reading
from pipeline.dlq.receipts import Deed, Receipt
from pipeline.errors import ChimeraError
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import explain_kafka

_DELIVERY_SECONDS = 30.0
_CLAIM_USED_SECONDS = 20.0  # together less than CLAIM_SECONDS
_POLL_SECONDS = 0.1
_ANY_BYTES = 1_000_000_000


@dataclass(slots=True)
class _Delivery:
    """What the broker says of records that were produced."""

    stored: list[str] = field(default_factory=list)
    failure: KafkaError | None = None


class Settler:
    """Settles the dead letters of one family.

    Its methods raise UnavailableError when Kafka doesn't answer, HaltError when it refuses; what was done by then is
    noted, or will be found.

    Args:
        settings: the broker.
        reading: of its dead-letter topic.
        outcome: is told how many were `requeued` or `dropped`, `found` to be requeued by a run that broke off, or
            `left`: another run has them or had within the last minute, or retention has deleted them.
    """

    def __init__(self, settings: KafkaSettings, reading: Reading, outcome: Counter[str]) -> None:
        self._settings = settings
        self._outcome = outcome
        self._reading = reading
        self._family = family = reading.family
        self._source = Log(settings, family.topic.name)
        self._ends = {partition: end for partition, (_, end) in self._source.spans().items()}
        self._run = uuid4().hex
        self._looked_for: set[str] = set()
        self._producer = KafkaProducer(
            {
                **client_config(settings),
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "zstd",  # the record may have been let in because it compresses well
                "partitioner": "murmur2_random",  # as `pipeline.producer.producer`: a key keeps its partition
                "linger.ms": 5,
                "batch.size": min(family.topic.max_message_bytes, family.dead_letters.max_message_bytes) // 2,
                "message.max.bytes": _ANY_BYTES,  # the broker knows, and counts what is compressed
                "message.timeout.ms": round(_DELIVERY_SECONDS * 1000),
                "log_level": 0,  # what goes wrong is raised
            }
        )

    def drop(self, letters: Sequence[Letter]) -> int:
        """Note that nobody wants these any more, all of one partition; returns how many that are."""
        self._write(letters[0].partition, Deed.DROPPED, [letter.id for letter in letters])
        self._outcome["dropped"] += len(letters)
        return len(letters)

    def requeue(self, letters: Sequence[Letter]) -> int:
        """Send these back, all of one partition; returns how many, from the front, are done.

        Fewer than were given are done when the claim on them becomes old.
        """
        began, partition = monotonic(), letters[0].partition
        claim = self._write(partition, Deed.CLAIMED, [letter.id for letter in letters], self._ends)
        self._reading.read_receipts(partition, claim + 1)
        ours, doubtful = self._reading.index.held(letters, self._run)
        found = self._find(doubtful)
        wanted = [letter for letter in ours if letter.id not in found]
        delivery, reached = self._produce(wanted, began + _CLAIM_USED_SECONDS)
        self._write(partition, Deed.REQUEUED, [*found, *delivery.stored])
        if delivery.failure:
            raise self._explained(self._family.topic.name, delivery.failure)
        done = len(letters) if reached is None else sum(letter.offset < reached for letter in letters)
        self._outcome.update(requeued=len(delivery.stored), found=len(found))
        self._outcome["left"] += done - len(delivery.stored) - len(found)
        return done

    def _find(self, doubtful: Mapping[str, Mapping[int, int]]) -> set[str]:
        """Those that are in the source topic: letters that a former run claimed, and the ends it noted."""
        sought = doubtful.keys() - self._looked_for  # once: it may take longer than a claim lasts
        if not sought:
            return set()
        self._looked_for |= sought
        spans = {
            partition: (max(first, min(doubtful[id_].get(partition, 0) for id_ in sought)), end)
            for partition, (first, end) in self._source.spans().items()
        }
        said = (_requeued_id(record.headers) for record in self._source.read(spans))
        return {id_ for id_ in said if id_ in sought}

    def _produce(self, wanted: Sequence[Letter], until: float) -> tuple[_Delivery, int | None]:
        """Produce their records; returns too the offset of the first one that there was no time for."""
        delivery, reached = _Delivery(), None
        for letter, record in self._reading.records(wanted):
            if monotonic() >= until or delivery.failure:
                reached = letter.offset
                break
            self._send(record, letter, delivery)
        self._producer.flush()
        return delivery, reached

    def _send(self, record: Record, letter: Letter, delivery: _Delivery) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is None:
                delivery.stored.append(letter.id)
            else:
                delivery.failure = error

        headers = requeued_headers(letter, record.headers)
        while True:
            try:
                self._producer.produce(
                    self._family.topic.name, record.value, record.key, headers=[*headers], on_delivery=delivered
                )
            except BufferError:
                self._producer.poll(_POLL_SECONDS)
            except KafkaException as error:
                delivery.failure = error.args[0]
                return
            else:
                self._producer.poll(0)
                return

    def _write(self, partition: int, deed: Deed, ids: Iterable[str], ends: Mapping[int, int] | None = None) -> int:
        """Write a receipt to a partition of the dead-letter topic; returns its offset."""
        receipt = Receipt(deed, self._run, tuple(ids), dict(ends or {}))
        if not receipt.letters:
            return -1
        done: list[tuple[KafkaError | None, int]] = []
        self._producer.produce(
            self._family.dead_letters.name,
            receipt.value,
            partition=partition,
            headers=[*receipt.headers],
            on_delivery=lambda error, message: done.append((error, message.offset() or 0)),
        )
        self._producer.flush()
        ((error, offset),) = done
        if error is not None:
            raise self._explained(self._family.dead_letters.name, error)
        return offset

    def _explained(self, topic: str, error: KafkaError) -> ChimeraError:
        return explain_kafka(error, self._settings, f"WRITE on topic {topic}")


def _requeued_id(headers: Headers) -> str | None:
    said = [value for name, value in headers if name == REQUEUED and value is not None]
    return said[-1].decode(errors="replace") if said else None
