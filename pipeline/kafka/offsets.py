"""Reader of offset ranges: it reads a topic from offset to offset, outside of any consumer group."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic, sleep
from types import TracebackType
from typing import Self, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.config import KafkaSettings
from pipeline.errors import ChimeraError, HaltError, damaged_log
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import NO_TOPIC, NOT_NOW, PROBE_SECONDS, explain_kafka, missing_topic

_POLL_SECONDS = 0.2
_BATCH = 1_000
_SEEK_GAP = 2_000  # a longer gap between wanted records is skipped by a new fetch instead of read
_DAMAGED = frozenset({KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION})
_OPTIONS = {
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "fetch.message.max.bytes": 4 * 1024 * 1024,
    "queued.max.messages.kbytes": 16 * 1024,
    "fetch.wait.max.ms": 10,  # the next partition waits for the fetch at the end of this one
    "fetch.queue.backoff.ms": 10,  # a full queue is emptied within moments
    "log_level": 0,  # errors are raised
}
# ruff: noqa: SLF001 (librdkafka's own error codes are public under names with an underscore)


_Answer = TypeVar("_Answer")


def _ignore(_done: int, _total: int) -> None:
    pass


class TopicReader:
    """Reads ranges of offsets of one topic. It joins no group and commits nothing.

    Records of aborted and of open transactions are read too, unless `only_committed` is set. The pipeline writes its
    own topics without transactions, and nobody's open one may hide a dead letter's claim or a snapshot. Therefore the
    end of a range is the end of the log, not the last stable offset. Methods raise UnavailableError if Kafka doesn't
    answer, HaltError if it refuses or has no such topic.

    Args:
        settings: the broker; `committed` asks for its group.
        topic: name of the topic.
        answer_seconds: longest wait for facts about the topic.
        silence_seconds: longest wait for the next record of a range.
        probe_seconds: longest wait for the reason of a failure.
        skip_deleted: go on after records that retention has deleted; otherwise their absence is an error.
        check_sums: halt at a batch with a wrong checksum; otherwise its records are read as they are, if they can be.
        only_committed: leave out the records of transactions, unless they are committed, as the worker does. A range
            must end at or below the last stable offset.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        *,
        answer_seconds: float = 10.0,
        silence_seconds: float = 30.0,
        probe_seconds: float = PROBE_SECONDS,
        skip_deleted: bool = True,
        check_sums: bool = True,
        only_committed: bool = False,
    ) -> None:
        self.topic = topic
        self._settings = settings
        self._answer_seconds = answer_seconds
        self._silence_seconds = silence_seconds
        self._probe_seconds = probe_seconds
        self._consumer = Consumer(
            {
                **client_config(settings),
                **_OPTIONS,
                "check.crcs": check_sums,
                "isolation.level": "read_committed" if only_committed else "read_uncommitted",
                "auto.offset.reset": "earliest" if skip_deleted else "error",
                "group.id": settings.group_id,  # the client needs one
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect from the broker."""
        self._consumer.close()

    def partitions(self) -> list[int]:
        """Numbers of the topic's partitions, ascending."""
        return self._retried(self._ask_partitions)

    def ranges(self, partitions: Iterable[int] | None = None) -> dict[int, range]:
        """Offsets from the first record to the end, of these partitions or of all."""
        numbers = self.partitions() if partitions is None else partitions
        return self._retried(lambda: {number: self._ask_range(number) for number in numbers})

    def ranges_since(self, timestamp_ms: int) -> dict[int, range]:
        """Offsets from the first record that isn't older than a timestamp to the end, by partition."""
        ranges = self.ranges()
        starts = self.first_since(timestamp_ms, ranges)
        return {number: range(starts.get(number, offsets.stop), offsets.stop) for number, offsets in ranges.items()}

    def committed(self, partitions: Iterable[int]) -> dict[int, int | None]:
        """Offset that the group has committed, by partition; None if there is none."""
        numbers = list(partitions)
        found = self._retried(lambda: self._ask_committed(numbers), f"group {self._settings.group_id}")
        return {place.partition: place.offset if place.offset >= 0 else None for place in found}

    def first_since(self, time_ms: int, partitions: Iterable[int]) -> dict[int, int]:
        """Offset of the first record whose timestamp is at or after a time, by partition; none where there is none."""
        since_ms = max(time_ms, 0)  # Kafka takes -1 for the end of the log, and other negative numbers for other places
        asked = [TopicPartition(self.topic, number, since_ms) for number in partitions]
        found = self._retried(lambda: self._consumer.offsets_for_times(asked, self._answer_seconds) if asked else [])
        return {place.partition: place.offset for place in found if place.offset >= 0}

    def read(self, ranges: Mapping[int, range], progress: Callable[[int, int], None] = _ignore) -> Iterator[Message]:
        """Read all records within these ranges, one partition after the other.

        Args:
            ranges: offsets to read, by partition.
            progress: called after each record with the number of offsets passed, and with their total.
        """
        passed, total = 0, sum(map(len, ranges.values()))
        for partition, offsets in ranges.items():
            for messages in self.batches(partition, offsets):
                for message in messages:
                    yield message
                    progress(passed + offset_of(message) + 1 - offsets.start, total)
            passed += len(offsets)

    def pick(self, partition: int, offsets: Sequence[int]) -> Iterator[Message]:
        """Read the records at these ascending offsets; offsets without a record are left out."""
        for run in _runs(offsets):
            wanted = set(run)
            found = self.read({partition: range(run[0], run[-1] + 1)})
            yield from (message for message in found if offset_of(message) in wanted)

    def batches(self, partition: int, offsets: range) -> Iterator[list[Message]]:
        """Read a range in batches, each of ascending offsets; gaps that compaction or deletion left are passed over.

        Raises:
            UnavailableError: the log ends before the range, and nothing more comes.
            HaltError: the log is damaged within the range.
        """
        position = offsets.start
        if offsets:
            self._consumer.assign([TopicPartition(self.topic, partition, position)])
        while position < offsets.stop:
            found, damage = [], None
            for message in self._next(partition, min(_BATCH, offsets.stop - position)):
                offset = offset_of(message)
                if _is_damaged(message) and offset < offsets.stop:
                    damage = self._damaged(partition, offset)
                    break
                if message.error() is not None:  # the end of the log; below offsets.stop it has still to come back
                    position = max(position, offset)
                elif offset >= position:
                    position = offset + 1
                    if offset < offsets.stop:
                        found.append(message)
            if found:
                yield found
            if damage is not None:
                raise damage

    def _next(self, partition: int, most: int) -> list[Message]:
        """Return the next records of the partition, in their order, and the message that reports its end or damage."""
        deadline = monotonic() + self._silence_seconds
        while True:
            first = self._consumer.poll(_POLL_SECONDS)
            got = [] if first is None else [first]
            if got and most > 1:
                got += self._consumer.consume(most - 1, 0)
            if found := [
                message for message in _up_to_damage(got) if self._is_news(message) and message.partition() == partition
            ]:
                return found
            if monotonic() > deadline:
                raise self._explained(KafkaError(KafkaError._TIMED_OUT))

    def _is_news(self, message: Message) -> bool:
        """True for a record, the end of the log, and its damage; raises other errors, unless the client retries."""
        error = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF or _is_damaged(message):
            return True
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # the client keeps trying
            raise self._explained(error)
        return False

    def _damaged(self, partition: int, offset: int) -> HaltError:
        way_out = "delete the records up to the end of this batch with kafka-delete-records"
        return damaged_log(self.topic, partition, f"the batch at offset {offset} isn't what was written", way_out)

    def _retried(self, ask: Callable[[], _Answer], what: str = "") -> _Answer:
        deadline = monotonic() + self._answer_seconds
        while True:
            try:
                return ask()
            except KafkaException as error:
                if error.args[0].code() not in NOT_NOW or monotonic() > deadline:
                    raise self._explained(error.args[0], what) from None
            sleep(_POLL_SECONDS)

    def _ask_partitions(self) -> list[int]:
        found = self._consumer.list_topics(self.topic, self._answer_seconds).topics[self.topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return sorted(found.partitions)

    def _ask_committed(self, partitions: list[int]) -> list[TopicPartition]:
        asked = [TopicPartition(self.topic, number) for number in partitions]
        found = self._consumer.committed(asked, self._answer_seconds) if asked else []
        for place in found:
            if place.error is not None:  # it has no offset then, and would pass for a partition without a commit
                raise KafkaException(place.error)
        return found

    def _ask_range(self, partition: int) -> range:
        return range(*self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), self._answer_seconds))

    def _explained(self, error: KafkaError, what: str = "") -> ChimeraError:
        if error.code() in NO_TOPIC:
            return HaltError(missing_topic(self._settings, self.topic))
        what = what or f"READ on topic {self.topic}"
        return explain_kafka(error, self._settings, what, probe_seconds=self._probe_seconds)


def offset_of(message: Message) -> int:
    """Offset of a message that was read."""
    offset = message.offset()
    assert offset is not None  # only a message that is still to be sent has none
    return offset


def _is_damaged(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() in _DAMAGED


def _up_to_damage(messages: Iterable[Message]) -> Iterator[Message]:
    """Yield messages up to the first damage; the client reports more errors behind it, which mean nothing."""
    for message in messages:
        yield message
        if _is_damaged(message):
            return


def _runs(offsets: Iterable[int]) -> Iterator[list[int]]:
    """Group offsets that are close enough to be read in one go."""
    run: list[int] = []
    for offset in offsets:
        if run and offset - run[-1] > _SEEK_GAP:
            yield run
            run = []
        run.append(offset)
    if run:
        yield run
