"""Snapshots in the compacted state topic: write them so that a whole one always exists, and read the newest one.

A writer belongs to one ownership of a partition. It writes to its own two slots in turn, so a worker that has lost the
partition and still writes doesn't overwrite the next owner's snapshots. Once both of its slots are whole, a writer
removes the snapshots of earlier writers.
"""

import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import structlog
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message

from pipeline.catalog import TopicSpec
from pipeline.config import KafkaSettings
from pipeline.errors import ChimeraError, HaltError
from pipeline.kafka.failures import NO_TOPIC, PROBE_SECONDS, explain_kafka, missing_topic
from pipeline.kafka.offsets import TopicReader, offset_of
from pipeline.kafka.producing import RecordProducer
from pipeline.rollup.keys import MANIFEST, Key
from pipeline.rollup.slots import Loaded, newest
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
_TIME = "time"  # part of a key that belongs to no snapshot
_Values = dict[Key, bytes]
"""Latest value of each key of a source partition."""


@dataclass(slots=True)
class _Writer:
    """Writer of one ownership of a partition."""

    found: list[Key] = field(default_factory=list)
    """Keys of earlier writers, to be removed."""
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    written: int = 0
    sizes: list[int] = field(default_factory=lambda: [0] * _SLOTS)
    """Largest number of chunks that each slot may have in the topic."""


def appended_at(message: Message) -> int | None:
    """Return the broker's timestamp of a record in ms since 1970; None if its timestamp is by its producer."""
    kind, time_ms = message.timestamp()
    return time_ms if kind == TIMESTAMP_LOG_APPEND_TIME else None


class SnapshotStore:
    """Writer and reader of a consumer group's snapshots. Calls block, for at most 10 s on a silent broker.

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
        self.newest_ms: int | None = None
        """The broker's timestamp of the newest record that `load` has read, in ms since 1970: its clock is past it."""

    def load(
        self, topic_id: str, partitions: Collection[int], progress: Progress = lambda _read, _total: None
    ) -> dict[int, Loaded]:
        """Read the newest whole snapshot of each partition, and become the writer of these partitions.

        Damaged and half-written snapshots are skipped with a warning.

        Args:
            topic_id: id of the source topic.
            partitions: partitions of the source topic.
            progress: called with the number of records read, and the number of records at the start of the call.

        Returns:
            Snapshots by partition; partitions without any are left out.

        Raises:
            UnavailableError: the broker doesn't answer.
            HaltError: the broker refuses, or the topic is missing.
        """
        loaded = {}
        reader = TopicReader(
            self._settings,
            self._topic.name,
            answer_seconds=self._answer_seconds,
            silence_seconds=self._answer_seconds,
            probe_seconds=self._probe_seconds,
            skip_deleted=False,  # a snapshot would lack the skipped records
            check_sums=False,  # snapshots have their own, and an older one takes a damaged one's place
        )
        with reader:
            for partition, values in self._read(reader, partitions, progress):
                self._writers[topic_id, partition] = _Writer(list(values))
                if found := newest(values, topic_id):
                    loaded[partition] = found
                    self._warn(partition, found.damaged)
        return loaded

    def write(self, snapshot: Snapshot) -> None:
        """Write a snapshot; return when all in-sync replicas have it. After a failure the previous one is still whole.

        Raises:
            UnavailableError: the broker didn't accept all of it; try again.
            HaltError: the broker refuses, or the topic is missing.
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

    def broker_time_ms(self, partition: int) -> int | None:
        """Ask the broker for its time: write a record for a source partition, and return the broker's timestamp of it.

        The record is a tombstone, of which compaction leaves nothing, and no reader takes its key for a snapshot's.

        Returns:
            Time in ms since 1970; None if the topic has its producers' timestamps, which are this machine's.

        Raises:
            UnavailableError: the broker doesn't answer.
            HaltError: the broker refuses, or the topic is missing.
        """
        with self._lock:
            return self._send(partition, {Key(self._settings.group_id, "", partition, _TIME, _TIME): None})

    def close(self) -> None:
        """Close the connection to the broker."""
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
        """Keep the latest value of a record's key, and the time of the newest record."""
        if (time_ms := appended_at(message)) is not None:
            self.newest_ms = max(time_ms, self.newest_ms or 0)
        key, value = Key.parse(message.key() or b""), message.value()
        if key is None or key.group != self._settings.group_id or key.partition not in found:
            return
        if value is None:
            found[key.partition].pop(key, None)
        else:
            found[key.partition][key] = value

    def _warn(self, partition: int, damaged: Iterable[str]) -> None:
        for what in damaged:
            log.warning("snapshot skipped", topic=self._topic.name, partition=partition, reason=what)

    def _send(self, partition: int, values: Mapping[Key, bytes | None]) -> int | None:
        """Write records of a source partition; return when all in-sync replicas have them.

        Returns:
            The broker's timestamp of the newest one, in ms; None without records, or without a timestamp by the broker.
        """
        if not values:
            return None
        failures, times = list[KafkaError](), list[int]()

        def delivered(error: KafkaError | None, message: Message | None) -> None:
            if error is not None:
                failures.append(error)
            elif message is not None and (time_ms := appended_at(message)) is not None:
                times.append(time_ms)

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
        return max(times, default=None)

    def _producer(self) -> RecordProducer:
        if self._connected is None:
            options = {**_PRODUCER, "message.max.bytes": self._topic.max_message_bytes}
            self._connected = RecordProducer(self._settings, options, timeout_seconds=self._answer_seconds)
        return self._connected

    def _explained(self, error: KafkaError) -> ChimeraError:
        if error.code() in NO_TOPIC:
            return HaltError(missing_topic(self._settings, self._topic.name))
        return explain_kafka(error, self._settings, f"topic {self._topic.name}", probe_seconds=self._probe_seconds)
