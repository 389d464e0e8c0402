"""Reader that follows logs: it reads several topics from their beginning, and later only what is new."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.config import KafkaSettings
from pipeline.kafka.client import client_config
from pipeline.kafka.failures import explain_kafka
from pipeline.kafka.offsets import offset_of
from pipeline.kafka.standing import LogPlace

_PROBE_SECONDS = 2.0
_BATCH = 1000


class LogFollower:
    """Reads the records of partitions, each once and in its order, outside of any group.

    Args:
        settings: the broker.
        answer_seconds: longest wait for the next record.
    """

    def __init__(self, settings: KafkaSettings, *, answer_seconds: float) -> None:
        self._settings = settings
        self._answer_seconds = answer_seconds
        self._positions: dict[LogPlace, int] = {}
        self._consumer: Consumer | None = None

    def left(self, logs: Mapping[LogPlace, range]) -> int:
        """Number of offsets in these logs that aren't read yet."""
        return sum(len(part) for part in self._unread(logs).values())

    def read(self, logs: Mapping[LogPlace, range]) -> Iterator[Message]:
        """Read what these logs have and an earlier call hasn't read; a log that was made anew is read again.

        Raises:
            UnavailableError: the broker doesn't send the records in time. Those that came are yielded.
            HaltError: the broker refuses.
        """
        unread = self._unread(logs)
        if not unread:
            return
        consumer = self._consumer = self._consumer or Consumer(self._options())
        consumer.assign([TopicPartition(*place, part.start) for place, part in unread.items()])
        try:
            yield from self._until_read(consumer, unread)
        except KafkaException as error:
            raise self._explained(error.args[0]) from None
        finally:
            consumer.unassign()  # an idle client fetches nothing

    def _unread(self, logs: Mapping[LogPlace, range]) -> dict[LogPlace, range]:
        unread = {}
        for place, log in logs.items():
            position = self._positions.get(place, log.start)
            if position > log.stop:
                position = log.start
            if part := range(max(position, log.start), log.stop):
                unread[place] = part
        return unread

    def _until_read(self, consumer: Consumer, unread: dict[LogPlace, range]) -> Iterator[Message]:
        deadline = time.monotonic() + self._answer_seconds
        while unread:
            messages = consumer.consume(_BATCH, 0.2)
            for message in messages:
                place = LogPlace(message.topic() or "", message.partition() or 0)
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 (a public code)
                    raise KafkaException(error)
                if place not in unread:
                    continue
                offset = offset_of(message)
                self._positions[place] = offset if error else offset + 1
                if self._positions[place] >= unread[place].stop:
                    del unread[place]
                if error is None:
                    yield message
            if messages:
                deadline = time.monotonic() + self._answer_seconds
            elif time.monotonic() > deadline:
                raise self._explained(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001

    def _explained(self, error: KafkaError) -> Exception:
        return explain_kafka(error, self._settings, "READ on dead letters or state", probe_seconds=_PROBE_SECONDS)

    def _options(self) -> dict[str, Any]:
        return {
            **client_config(self._settings),
            "group.id": self._settings.group_id,  # the client needs one; it neither joins nor commits
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_uncommitted",
            "fetch.message.max.bytes": 1024 * 1024,
            "queued.max.messages.kbytes": 8 * 1024,
            "log_level": 0,
        }
