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
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from pipeline.catalog import TopicSpec
from pipeline.config import KafkaSettings
from pipeline.errors import ChimeraError, HaltError
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import explain_kafka
from pipeline.rollup.slots import MANIFEST, Key, Loaded, newest
from pipeline.rollup.snapshot import CHUNK_BYTES, Snapshot, pack

_ANSWER_SECONDS = 10.0
_SLOTS = 2
_CONSUMER = {
    "enable.auto.commit": False,
    "auto.offset.reset": "error",  # what was there a moment ago; a jump would leave something out
    "fetch.message.max.bytes": 4 * 1024 * 1024,
    "queued.max.messages.kbytes": 16 * 1024,
    "fetch.wait.max.ms": 10,  # a fetch at the end of one partition is awaited before the next one is read
    "fetch.queue.backoff.ms": 10,  # a full queue is read within moments, not in a second
    "log_level": 0,  # what goes wrong is raised
}
_PRODUCER = {
    "acks": "all",
    "linger.ms": 5,
    "topic.metadata.propagation.max.ms": 1000,  # then a topic that isn't there is said to be missing
    "message.timeout.ms": round(_ANSWER_SECONDS * 1000),
    "log_level": 0,
}
_NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001 (the client's own)

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
    """

    def __init__(self, settings: KafkaSettings, topic: TopicSpec, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._chunk_bytes = chunk_bytes
        self._settings = settings
        self._topic = topic
        self._lock = threading.Lock()
        self._writers: defaultdict[tuple[str, int], _Writer] = defaultdict(_Writer)
        self._connected: Producer | None = None

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
        consumer = Consumer({**client_config(self._settings), **_CONSUMER, "group.id": self._settings.group_id})
        try:
            for partition, values in self._read(consumer, partitions, progress):
                self._writers[topic_id, partition] = _Writer(list(values))
                if found := newest(values, topic_id):
                    loaded[partition] = found
                    self._warn(partition, found.damaged)
        except KafkaException as error:
            raise self._explained(error.args[0]) from None
        finally:
            consumer.close()
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
        self, consumer: Consumer, partitions: Collection[int], progress: Progress
    ) -> Iterator[tuple[int, _Values]]:
        """The group's records of each source partition; state partition by state partition, to hold little at once."""
        count = self._count(consumer)
        spans = {
            place: consumer.get_watermark_offsets(TopicPartition(self._topic.name, place), _ANSWER_SECONDS)
            for place in sorted({partition % count for partition in partitions})
        }
        passed, total = 0, sum(end - beginning for beginning, end in spans.values())
        for place, (beginning, end) in spans.items():
            found: dict[int, _Values] = {partition: {} for partition in partitions if partition % count == place}
            for read, message in self._messages(consumer, place, beginning, end):
                self._note(message, found)
                progress(passed + read, total)
            passed += end - beginning
            yield from found.items()

    def _messages(self, consumer: Consumer, place: int, beginning: int, end: int) -> Iterator[tuple[int, Message]]:
        """What is between two offsets of a state partition, each with how far that is."""
        consumer.assign([TopicPartition(self._topic.name, place, beginning)])
        position = beginning
        while position < end:
            message = consumer.poll(_ANSWER_SECONDS)
            if message is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 (as above)
            if error := message.error():
                raise KafkaException(error)
            offset = message.offset()
            assert offset is not None  # only a message that is to be sent has none
            position = offset + 1
            if position <= end:
                yield position - beginning, message

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
        """Write records of a source partition; returns when all replicas in sync have them."""
        if not values:
            return
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        if self._connected is None:
            limit = {"message.max.bytes": self._topic.max_message_bytes}
            self._connected = Producer({**client_config(self._settings), **_PRODUCER, **limit})
        try:
            place = partition % self._count(self._connected)
            for key, value in values.items():
                self._connected.produce(self._topic.name, value, bytes(key), place, on_delivery=delivered)
        except KafkaException as error:
            failures.append(error.args[0])
        self._connected.flush()
        if failures:
            self._connected = None  # the next one starts without what this one believes of the broker
            raise self._explained(failures[0])

    def _count(self, client: Consumer | Producer) -> int:
        """How many partitions the state topic has."""
        topics = client.list_topics(self._topic.name, _ANSWER_SECONDS).topics
        if error := topics[self._topic.name].error:
            raise KafkaException(error)
        return len(topics[self._topic.name].partitions)

    def _explained(self, error: KafkaError) -> ChimeraError:
        if error.code() in _NO_TOPIC:
            where = f"Kafka at {self._settings.bootstrap_servers}"
            return HaltError(f"{where}: no topic {self._topic.name}; create it with `chimera topics apply`")
        return explain_kafka(error, self._settings, f"topic {self._topic.name}")
