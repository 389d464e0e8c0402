"""Kafka record for tests that need no broker."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """Record with the attributes that a micro-batch reads; `timestamp` is in milliseconds since 1970."""

    offset: int
    value: bytes | None = b""
    key: bytes | None = None
    timestamp: int = 0
    headers: tuple[tuple[str, bytes | None], ...] = ()


TOPIC_ID = "Kq3mXo5pQ0uWm0n0aD2x7A"
"""Id of a topic, as Kafka writes it."""
