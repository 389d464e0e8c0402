"""A dead letter as its headers describe it, and the headers of its record when it is requeued."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from confluent_kafka import Message

from pipeline.dlq.headers import (
    ATTEMPTS,
    CUT_PREFIX,
    HEADER_PREFIX,
    REQUEUED,
    Headers,
    attempts_of,
    error_facts,
    own_headers,
)
from pipeline.errors import Reason

OPEN = "open"
"""State of a dead letter that nothing has been done about."""
FOREIGN = "foreign"
"""Stands in place of a reason if no worker wrote the dead letter about a record of this topic."""
OTHER = "other"
"""Stands in place of a reason that this version doesn't know."""


class DlqRecord(NamedTuple):
    """A record of a dead-letter topic: a dead letter or a receipt. Its timestamp is in ms."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter without its key, value and headers. All copies of a dead letter have the same id."""

    id: str
    partition: int
    offset: int
    source_partition: int | None
    """Partition of its record in the source topic; None if the dead letter is foreign."""
    source_offset: int | None
    reason: str
    attempts: int
    """Number of times its record has been rejected."""
    whole: bool
    """True if the dead letter has its whole record; a record that is too large loses parts."""
    copies: int
    state: str
    failed_at: datetime

    @property
    def foreign(self) -> bool:
        """True if the place of its record in the source topic is unknown."""
        return self.source_partition is None


def read_record(message: Message) -> DlqRecord:
    """Copy a message that a client read from a dead-letter topic."""
    headers: Any = message.headers() or []
    at, timestamp = (message.partition() or 0, message.offset() or 0), message.timestamp()[1]
    return DlqRecord(*at, timestamp, message.key(), message.value(), headers)


def read_letter(source: str, record: DlqRecord) -> Letter:
    """Read a dead letter from a record of the dead-letter topic of `source`."""
    facts = error_facts(record.headers)
    partition, offset = _number(facts.get("partition")), _number(facts.get("offset"))
    known = facts.get("topic") == source and partition is not None and offset is not None
    return Letter(
        id=letter_id(partition, offset, record.key, record.value)
        if known
        else f"dlq:{record.partition}:{record.offset}",
        partition=record.partition,
        offset=record.offset,
        source_partition=partition if known else None,
        source_offset=offset if known else None,
        reason=(facts["reason"] if facts["reason"] in set(Reason) else OTHER) if known else FOREIGN,
        attempts=attempts_of(record.headers),
        whole=not any(f"{HEADER_PREFIX}{name}".startswith(CUT_PREFIX) for name in facts),
        copies=1,
        state=OPEN,
        failed_at=_time(facts.get("failed_at")) or _from_ms(record.timestamp),
    )


def letter_id(partition: int | None, offset: int | None, key: bytes | None, value: bytes | None) -> str:
    """Return the id of the dead letter of a record.

    It has a digest of the content, since coordinates alone repeat when a source topic is created anew.
    """
    digest = hashlib.blake2b(b"%d:" % len(key or b""), digest_size=8)
    digest.update(key or b"")
    digest.update(value or b"")
    return f"{partition}:{offset}:{digest.hexdigest()}"


def requeued_headers(letter: Letter, headers: Headers) -> list[tuple[str, bytes | None]]:
    """Return the headers of a requeued record: its own, its number of attempts, and the id of its dead letter."""
    ours = [(ATTEMPTS, str(letter.attempts).encode()), (REQUEUED, letter.id.encode())]
    return [*own_headers(headers), *ours]


def record_time(facts: Mapping[str, str]) -> datetime | None:
    """Return the timestamp of the record in the source topic; None if an older version wrote the dead letter."""
    milliseconds = _number(facts.get("timestamp"))
    return None if milliseconds is None else _from_ms(milliseconds)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


def _time(text: str | None) -> datetime | None:
    try:
        time = datetime.fromisoformat(text or "")
        return time.astimezone(UTC) if time.tzinfo else None
    except (ValueError, OverflowError):  # also a time of the year 1 that is one of the year 0 in UTC
        return None


def _from_ms(milliseconds: int) -> datetime:
    """Convert a record's timestamp; a number that isn't a time becomes 1970, since producers may choose any number."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)
