"""Reads topics from offset to offset, as they lie there, for no consumer group."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import monotonic, sleep
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.config import KafkaSettings
from pipeline.dlq.letters import Record
from pipeline.errors import ChimeraError, HaltError
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import explain_kafka

Spans = Mapping[int, tuple[int, int]]
"""Partition to its first offset and the one behind its last."""

_ANSWER_SECONDS = 10.0
_SILENCE_SECONDS = 30.0
_POLL_SECONDS = 0.2
_SEEK_GAP = 2_000  # so many records are passed over; behind more, reading starts anew
_BUFFER_KIB = 16 * 1024
# ruff: noqa: SLF001 (librdkafka's own error codes are public under names with an underscore)


# A partition that has just been created, or is changing its broker.
_MOVING = frozenset({KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION})


class Log:
    """Reads one topic.

    Records of transactions that were aborted, or aren't over, count as well: the worker takes them too.

    Its methods raise UnavailableError when Kafka doesn't answer, HaltError when it refuses or there is no such topic.
    """

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self.topic = topic
        self._settings = settings
        self._consumer = Consumer(
            {
                **client_config(settings),
                "group.id": settings.group_id,  # the client wants one; it is neither joined nor written to
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",  # when retention has been faster
                "isolation.level": "read_uncommitted",
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": _BUFFER_KIB,
                "log_level": 0,  # what goes wrong is raised
            }
        )

    def spans(self) -> dict[int, tuple[int, int]]:
        """What there is now, of each partition."""
        deadline = monotonic() + _ANSWER_SECONDS
        while True:
            try:
                return self._ask_spans()
            except KafkaException as error:
                if error.args[0].code() not in _MOVING or monotonic() > deadline:
                    raise self._explained(error.args[0]) from None
            sleep(_POLL_SECONDS)

    def read(self, spans: Spans) -> Iterator[Record]:
        """All records within these offsets, one partition after the other."""
        for partition, (first, end) in spans.items():
            if first < end:
                yield from self._read_partition(partition, first, end)

    def pick(self, partition: int, offsets: Sequence[int]) -> Iterator[Record]:
        """The records at these ascending offsets of a partition, but for those that retention has deleted."""
        for near in _neighbours(offsets):
            wanted = set(near)
            yield from (record for record in self.read({partition: (near[0], near[-1] + 1)}) if record.offset in wanted)

    def _ask_spans(self) -> dict[int, tuple[int, int]]:
        found = self._consumer.list_topics(self.topic, _ANSWER_SECONDS).topics[self.topic]
        if found.error is not None:
            raise KafkaException(found.error)
        partitions = [TopicPartition(self.topic, number) for number in sorted(found.partitions)]
        return {
            partition.partition: self._consumer.get_watermark_offsets(partition, _ANSWER_SECONDS)
            for partition in partitions
        }

    def _read_partition(self, partition: int, first: int, end: int) -> Iterator[Record]:
        self._consumer.assign([TopicPartition(self.topic, partition, first)])
        while (message := self._next()) is not None:
            record = _record(message)
            if record.offset < end:
                yield record
            if record.offset >= end - 1:
                return

    def _next(self) -> Message | None:
        """The next record; None at the end of the partition."""
        deadline = monotonic() + _SILENCE_SECONDS
        while monotonic() < deadline:
            message = self._consumer.poll(_POLL_SECONDS)
            if message is None:
                continue
            error = message.error()
            if error is None:
                return message
            if error.code() == KafkaError._PARTITION_EOF:
                return None
            if error.code() != KafkaError._ALL_BROKERS_DOWN:  # the client goes on trying
                raise self._explained(error)
        raise self._explained(KafkaError(KafkaError._TIMED_OUT))

    def _explained(self, error: KafkaError) -> ChimeraError:
        if error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}:
            where = f"Kafka at {self._settings.bootstrap_servers}"
            return HaltError(f"{where}: no topic {self.topic}; create it with: chimera topics apply")
        return explain_kafka(error, self._settings, f"READ on topic {self.topic}")


def _record(message: Message) -> Record:
    """All that is of interest; a message without an error has offset and partition."""
    headers: Any = message.headers() or []
    at, timestamp = (message.partition() or 0, message.offset() or 0), message.timestamp()[1]
    return Record(*at, timestamp, message.key(), message.value(), headers)


def _neighbours(offsets: Iterable[int]) -> Iterator[list[int]]:
    """Runs of offsets that are worth reading in one go."""
    run: list[int] = []
    for offset in offsets:
        if run and offset - run[-1] > _SEEK_GAP:
            yield run
            run = []
        run.append(offset)
    if run:
        yield run
