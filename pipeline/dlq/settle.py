"""Settle dead letters: requeue their records to the source topic, or drop them, and write receipts.

Each dead letter is requeued once, even if a run breaks off anywhere or two run at once:
1. A run claims dead letters by a receipt in their partition of the dead-letter topic. The first claim in the log holds
   for `CLAIM_SECONDS`.
2. It produces the records, each with the id of its dead letter.
3. It writes the receipt that they are requeued.
If a claim was left without that receipt, the next run looks for the ids in the source topic, from the ends that the
first claim noted, and produces only the missing ones.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException, Message

from pipeline.config import KafkaSettings
from pipeline.dlq.headers import requeued_id
from pipeline.dlq.letters import DlqRecord, Letter, requeued_headers
from pipeline.dlq.reading import Reading
from pipeline.dlq.receipts import Outcome, Receipt
from pipeline.errors import ChimeraError
from pipeline.kafka.failures import explain_kafka
from pipeline.kafka.offsets import TopicReader
from pipeline.kafka.producing import RecordProducer

_DELIVERY_SECONDS = 30.0
_CLAIM_USED_SECONDS = 20.0  # together less than CLAIM_SECONDS
_ANY_BYTES = 1_000_000_000


@dataclass(slots=True)
class _Delivery:
    """Outcomes of produced records."""

    stored: list[str] = field(default_factory=list)
    failure: KafkaError | None = None


class Settler:
    """Settles the dead letters of one family.

    Methods raise UnavailableError if Kafka doesn't answer, HaltError if it refuses. Dead letters that were settled by
    then have a receipt, or the next run finds their records in the source topic.

    Args:
        settings: the broker.
        reading: of the dead-letter topic.
        counts: counter of dead letters that are `requeued` or `dropped`; `found`: an earlier run that broke off had
            requeued them; `left`: another run has them or had them a minute ago, or retention has deleted them.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        reading: Reading,
        counts: Counter[str],
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._settings = settings
        self._counts = counts
        self._clock = clock
        self._reading = reading
        self._family = family = reading.family
        self._source = TopicReader(settings, family.topic.name)
        self._ends = {partition: offsets.stop for partition, offsets in self._source.ranges().items()}
        self._run = uuid4().hex
        self._looked_for: set[str] = set()
        options = {
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "zstd",  # the topic may have accepted the record only because it compresses well
            "partitioner": "murmur2_random",  # as in `pipeline.producer`: a key keeps its partition
            "linger.ms": 5,
            "batch.size": min(family.topic.max_message_bytes, family.dead_letters.max_message_bytes) // 2,
            "message.max.bytes": _ANY_BYTES,  # the broker checks it, and counts compressed bytes
        }
        self._producer = RecordProducer(settings, options, timeout_seconds=_DELIVERY_SECONDS)

    def drop(self, letters: Sequence[Letter]) -> int:
        """Write the receipt that these dead letters of one partition are dropped; return their number."""
        self._write(letters[0].partition, Outcome.DROPPED, [letter.id for letter in letters])
        self._counts["dropped"] += len(letters)
        return len(letters)

    def requeue(self, letters: Sequence[Letter]) -> int:
        """Requeue dead letters of one partition; return how many, from the front, are done.

        The rest is left for another claim if this one gets too old.
        """
        began, partition = self._clock(), letters[0].partition
        claim = self._write(partition, Outcome.CLAIMED, [letter.id for letter in letters], self._ends)
        self._reading.read_receipts(partition, claim + 1)
        ours, doubtful = self._reading.index.claimed(letters, self._run)
        found = self._find(doubtful)
        wanted = [letter for letter in ours if letter.id not in found]
        delivery, reached = self._produce(wanted, began + _CLAIM_USED_SECONDS)
        self._write(partition, Outcome.REQUEUED, [*found, *delivery.stored])
        if delivery.failure:
            raise self._explained(self._family.topic.name, delivery.failure)
        done = len(letters) if reached is None else sum(letter.offset < reached for letter in letters)
        self._counts.update(requeued=len(delivery.stored), found=len(found))
        self._counts["left"] += done - len(delivery.stored) - len(found)
        return done

    def _find(self, doubtful: Mapping[str, Mapping[int, int]]) -> set[str]:
        """Return the ids of dead letters whose records are in the source topic already.

        Args:
            doubtful: ids of dead letters that an earlier run claimed, and the ends that it noted.
        """
        sought = doubtful.keys() - self._looked_for  # once: it may take longer than a claim lasts
        if not sought:
            return set()
        self._looked_for |= sought
        ranges = {
            partition: range(
                max(offsets.start, min(doubtful[id_].get(partition, 0) for id_ in sought)),
                offsets.stop,
            )
            for partition, offsets in self._source.ranges().items()
        }
        said = (requeued_id(_headers(message)) for message in self._source.read(ranges))
        return {id_ for id_ in said if id_ in sought}

    def _produce(self, wanted: Sequence[Letter], until: float) -> tuple[_Delivery, int | None]:
        """Produce the records; return the delivery, and the offset of the first record left out for lack of time."""
        delivery, reached = _Delivery(), None
        try:
            for letter, record in self._reading.records(wanted):
                if self._clock() >= until or delivery.failure:
                    reached = letter.offset
                    break
                self._send(record, letter, delivery)
            self._producer.flush()
        except KafkaException as error:
            raise self._explained(self._family.topic.name, error.args[0]) from None
        return delivery, reached

    def _send(self, record: DlqRecord, letter: Letter, delivery: _Delivery) -> None:
        def delivered(error: KafkaError | None, _: Message | None) -> None:
            if error is None:
                delivery.stored.append(letter.id)
            else:
                delivery.failure = error

        headers, topic = requeued_headers(letter, record.headers), self._family.topic.name
        self._producer.produce(topic, record.value, record.key, headers=headers, delivered=delivered)

    def _write(
        self, partition: int, outcome: Outcome, ids: Iterable[str], ends: Mapping[int, int] | None = None
    ) -> int:
        """Write a receipt to a partition of the dead-letter topic; return its offset."""
        receipt, topic = Receipt(outcome, self._run, tuple(ids), dict(ends or {})), self._family.dead_letters.name
        if not receipt.letters:
            return -1
        done: list[tuple[KafkaError | None, Message | None]] = []
        try:
            self._producer.produce(
                topic,
                receipt.value,
                partition=partition,
                headers=receipt.headers,
                delivered=lambda error, message: done.append((error, message)),
            )
            self._producer.flush()
        except KafkaException as error:
            raise self._explained(topic, error.args[0]) from None
        ((failure, message),) = done
        if failure is not None:
            raise self._explained(topic, failure)
        return (message and message.offset()) or 0

    def _explained(self, topic: str, error: KafkaError) -> ChimeraError:
        return explain_kafka(error, self._settings, f"WRITE on topic {topic}")


def _headers(message: Message) -> Any:
    return message.headers() or []
