"""A dead letter as its headers describe it, and the headers that its record goes back with."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from pipeline.dlq.writer import ATTEMPTS, CUT_PREFIX, HEADER_PREFIX, REASON, attempts_of
from pipeline.errors import Reason

REQUEUED = "chimera.requeued"
"""Header of a record that was requeued: the id of the dead letter that it was."""
OPEN = "open"
"""State of a dead letter that nothing has been done about."""
FOREIGN = "foreign"
"""In the place of a reason: somebody else's record, which no worker wrote about a record of this topic."""
OTHER = "other"
"""In the place of a reason that this version doesn't know."""

Headers = Sequence[tuple[str, bytes | None]]


class Record(NamedTuple):
    """A record of a topic; its timestamp is in milliseconds."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Letter:
    """What a dead letter says of itself; copies of one have the same id."""

    id: str
    partition: int
    offset: int
    source_partition: int | None
    """Where its record was in the source topic; None when it is foreign."""
    source_offset: int | None
    reason: str
    attempts: int
    """How often its record has been rejected."""
    whole: bool
    """Whether it has all that its record had: one that was too large has not."""
    copies: int
    state: str
    failed_at: datetime

    @property
    def foreign(self) -> bool:
        """Whether it isn't known where it belongs."""
        return self.source_partition is None


def read_letter(source: str, record: Record) -> Letter:
    """What a record of the dead-letter topic of `source` is."""
    facts = error_facts(record.headers)
    partition, offset = _number(facts.get("partition")), _number(facts.get("offset"))
    known = facts.get("topic") == source and partition is not None and offset is not None
    return Letter(
        id=f"{partition}:{offset}:{_digest(record)}" if known else f"dlq:{record.partition}:{record.offset}",
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


def _digest(record: Record) -> str:
    """Of the content: a source topic that was created anew has the same offsets again."""
    digest = hashlib.blake2b(b"%d:" % len(record.key or b""), digest_size=8)
    digest.update(record.key or b"")
    digest.update(record.value or b"")
    return digest.hexdigest()


def error_facts(headers: Headers) -> dict[str, str]:
    """What the worker says of the failure: name without prefix to text; nothing when it isn't the worker who speaks.

    Its headers are the last ones and begin with the reason. What a record came with may have such names too.
    """
    begin = max((at for at, (name, _) in enumerate(headers) if name == REASON), default=len(headers))
    own = headers[begin:]
    if not all(name.startswith(HEADER_PREFIX) for name, _ in own):
        return {}
    return {name.removeprefix(HEADER_PREFIX): (value or b"").decode(errors="replace") for name, value in own}


def own_headers(headers: Headers) -> list[tuple[str, bytes | None]]:
    """Those that the record had before it was a dead letter, or requeued."""
    return [(name, value) for name, value in headers if not name.startswith(HEADER_PREFIX) and name != REQUEUED]


def requeued_headers(letter: Letter, headers: Headers) -> list[tuple[str, bytes | None]]:
    """The record's own headers, how often it has been rejected, and which dead letter it was."""
    ours = [(ATTEMPTS, str(letter.attempts).encode()), (REQUEUED, letter.id.encode())]
    return [*own_headers(headers), *ours]


def record_time(facts: Mapping[str, str]) -> datetime | None:
    """The timestamp that the record had in the source topic; older versions don't tell."""
    milliseconds = _number(facts.get("timestamp"))
    return None if milliseconds is None else _from_ms(milliseconds)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


def _time(text: str | None) -> datetime | None:
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time.astimezone(UTC) if time.tzinfo else None


def _from_ms(milliseconds: int) -> datetime:
    """A record's timestamp. Whoever wrote it may have chosen the number: one that is no time is as old as can be."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)
