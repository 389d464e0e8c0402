"""Snapshots in the compacted state topic: written so that a whole one is always there, and the newest read back.

A writer is one ownership of a partition: a worker that has lost it and goes on writing overwrites nothing of the next
owner's. It writes to its two slots in turn, and removes what it found of others once both of them are whole.
"""

import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import structlog
from confluent_kafka import KafkaError, KafkaException, Message

from pipeline.catalog import TopicSpec
from pipeline.config import KafkaSettings
from pipeline.errors import ChimeraError, HaltError
from pipeline.kafka.failures import NO_TOPIC, PROBE_SECONDS, explain_kafka, missing_topic
from pipeline.kafka.offsets import TopicReader, offset_of
from pipeline.kafka.producing import RecordProducer
from pipeline.rollup.slots import MANIFEST, Key, Loaded, newest
from pipeline.rollup.snapshot import CHUNK_BYTES, Snapshot, pack

_ANSWER_SECONDS = 10.0
_SLOTS = 2
_PRODUCER = {
    "acks": "all",
    "linger.ms": 5,
    "topic.metadata.propagation.max.ms": 1000,  # a missing topic is reported after this
}

log = structlog.get_logger("chimera.rollup")

Progress = Callable[[int, int], None]
_Values = dict[Key, bytes]
"""Latest value of each key of a source partition."""


@dataclass(slots=True)
class _Writer:
    """One ownership of a partition."""

    found: list[Key] = field(default_factory=list)
    """Keys of others, to be removed."""
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    written: int = 0
    sizes: list[int] = field(default_factory=lambda: [0] * _SLOTS)
    """How many chunks each slot may have."""


class SnapshotStore:
    """Writes and reads the snapshots of a consumer group. Blocks, but no longer than 10 s on a silent broker.

    Args:
        settings: broker and group.
        topic: the state topic.
        chunk_bytes: size limit of a chunk.
        answer_seconds: longest wait for the broker.
        probe_seconds: longest wait for the reason of a failure.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: TopicSpec,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        answer_seconds: float = _ANSWER_SECONDS,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self._chunk_bytes = chunk_bytes
        self._answer_seconds = answer_seconds
        self._probe_seconds = probe_seconds
        self._settings = settings
        self._topic = topic
        self._lock = threading.Lock()
        self._writers: defaultdict[tuple[str, int], _Writer] = defaultdict(_Writer)
        self._connected: RecordProducer | None = None

    def load(
        self, topic_id: str, partitions: Collection[int], progress: Progress = lambda _read, _total: None
    ) -> dict[int, Loaded]:
        """Read the newest whole snapshot of each partition; from here on they are this store's.

        What is damaged or half-written is passed over, with a warning.

        Args:
            topic_id: of the source topic.
            partitions: of the source topic.
            progress: called with how many records have been read, and how many there were when this began.

        Returns:
            By partition; none of a partition without any.

        Raises:
            UnavailableError: the broker doesn't answer.
            HaltError: it refuses, or has no such topic.
        """
        loaded = {}
        reader = TopicReader(
            self._settings,
            self._topic.name,
            answer_seconds=self._answer_seconds,
            silence_seconds=self._answer_seconds,
            probe_seconds=self._probe_seconds,
            skip_deleted=False,  # a snapshot would lack what is skipped
        )
        with reader:
            for partition, values in self._read(reader, partitions, progress):
                self._writers[topic_id, partition] = _Writer(list(values))
                if found := newest(values, topic_id):
                    loaded[partition] = found
                    self._warn(partition, found.damaged)
        return loaded

    def write(self, snapshot: Snapshot) -> None:
        """Write a snapshot; returns when all replicas in sync have it. When it fails, the one before is still whole.

        Raises:
            UnavailableError: the broker didn't take all of it; worth another try.
            HaltError: it refuses, or has no such topic.
        """
        chunks, manifest = pack(snapshot, self._chunk_bytes)
        with self._lock:
            writer = self._writers[snapshot.topic_id, snapshot.partition]
            slot = writer.written % _SLOTS
            key = Key(self._settings.group_id, snapshot.topic_id, snapshot.partition, f"{writer.name}.{slot}", MANIFEST)
            keys = [key._replace(part=str(number)) for number in range(max(len(chunks), writer.sizes[slot]))]
            writer.sizes[slot] = len(keys)
            self._send(snapshot.partition, dict(zip(keys, chunks, strict=False)))
            self._send(snapshot.partition, {key: manifest})
            self._send(snapshot.partition, dict.fromkeys(keys[len(chunks) :]))
            writer.sizes[slot] = len(chunks)
            writer.written += 1
            if writer.written >= _SLOTS:
                self._send(snapshot.partition, dict.fromkeys(writer.found))
                writer.found.clear()

    def close(self) -> None:
        """Let go of the broker."""
        with self._lock:
            self._connected = None

    def _read(
        self, reader: TopicReader, partitions: Collection[int], progress: Progress
    ) -> Iterator[tuple[int, _Values]]:
        """Read the group's records of each source partition; one state partition after the other, to save memory."""
        count = len(reader.partitions())
        ranges = reader.ranges(sorted({partition % count for partition in partitions}))
        passed, total = 0, sum(map(len, ranges.values()))
        for place, offsets in ranges.items():
            found: dict[int, _Values] = {partition: {} for partition in partitions if partition % count == place}
            for messages in reader.batches(place, offsets):
                for message in messages:
                    self._note(message, found)
                    progress(passed + offset_of(message) + 1 - offsets.start, total)
            passed += len(offsets)
            yield from found.items()

    def _note(self, message: Message, found: Mapping[int, _Values]) -> None:
        """Take a record for the latest of its key."""
        key, value = Key.parse(message.key() or b""), message.value()
        if key is None or key.group != self._settings.group_id or key.partition not in found:
            return
        if value is None:
            found[key.partition].pop(key, None)
        else:
            found[key.partition][key] = value

    def _warn(self, partition: int, damaged: Iterable[str]) -> None:
        for what in damaged:
            log.warning("snapshot passed over", topic=self._topic.name, partition=partition, reason=what)

    def _send(self, partition: int, values: Mapping[Key, bytes | None]) -> None:
        """Write records of a source partition; return when all in-sync replicas have them."""
        if not values:
            return
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message | None) -> None:
            if error is not None:
                failures.append(error)

        producer = self._producer()
        try:
            place = partition % producer.partitions(self._topic.name, self._answer_seconds)
            for key, value in values.items():
                producer.produce(self._topic.name, value, bytes(key), partition=place, delivered=delivered)
            producer.flush()
        except KafkaException as error:
            failures.append(error.args[0])
        if failures:
            self._connected = None  # a new producer asks anew for brokers and topics
            raise self._explained(failures[0])

    def _producer(self) -> RecordProducer:
        if self._connected is None:
            options = {**_PRODUCER, "message.max.bytes": self._topic.max_message_bytes}
            self._connected = RecordProducer(self._settings, options, timeout_seconds=self._answer_seconds)
        return self._connected

    def _explained(self, error: KafkaError) -> ChimeraError:
        if error.code() in NO_TOPIC:
            return HaltError(missing_topic(self._settings, self._topic.name))
        return explain_kafka(error, self._settings, f"topic {self._topic.name}", probe_seconds=self._probe_seconds)
