"""Kafka records for tests that need no broker."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.transport.records import Record as KafkaRecord
from pipeline.transport.records import RecordColumns


@dataclass(frozen=True)
class Record:
    """Record with the attributes that a micro-batch reads; `timestamp` is in milliseconds since 1970."""

    offset: int
    value: bytes | None = b""
    key: bytes | None = None
    timestamp: int = 0
    headers: tuple[tuple[str, bytes | None], ...] = ()


def parts_of(records: Iterable[KafkaRecord]) -> list[RecordColumns]:
    """Return records as the part of a log that they are; there is no part without one."""
    given = list(records)
    return [RecordColumns.of(given)] if given else []


TOPIC_ID = "Kq3mXo5pQ0uWm0n0aD2x7A"
"""Id of a topic, as Kafka writes it."""
