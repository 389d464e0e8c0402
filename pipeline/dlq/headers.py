"""The header names of dead letters, requeued records and receipts, and the facts that these headers hold.

The worker's headers follow the record's own and begin with the reason. A record may come with headers of the same
names, so only the last ones count.
"""

import re
from collections.abc import Sequence

Headers = Sequence[tuple[str, bytes | None]]

HEADER_PREFIX = "chimera.error."
REASON = f"{HEADER_PREFIX}reason"
"""First of the worker's headers; the record's own headers stand before it."""
ATTEMPTS = f"{HEADER_PREFIX}attempts"
CUT_PREFIX = f"{HEADER_PREFIX}cut."
"""Prefix of the headers that say what was left out: `headers`, `key`, `value`."""
REQUEUED = "chimera.requeued"
"""Header of a requeued record: the id of its dead letter."""
RECEIPT = "chimera.receipt"
"""Last header of a receipt."""

_A_COUNT = re.compile(rb"[0-9]{1,9}")  # anybody can write such a header


def attempts_of(headers: Headers) -> int:
    """Return how often a record has become a dead letter before, by its last header of that name."""
    said = [value for name, value in headers if name == ATTEMPTS and value is not None and _A_COUNT.fullmatch(value)]
    return int(said[-1]) if said else 0


def error_facts(headers: Headers) -> dict[str, str]:
    """Return the worker's facts about a failure, by name without prefix; empty if no worker wrote the last headers."""
    begin = max((at for at, (name, _) in enumerate(headers) if name == REASON), default=len(headers))
    own = headers[begin:]
    if not all(name.startswith(HEADER_PREFIX) for name, _ in own):
        return {}
    return {name.removeprefix(HEADER_PREFIX): (value or b"").decode(errors="replace") for name, value in own}


def own_headers(headers: Headers) -> list[tuple[str, bytes | None]]:
    """Return the headers that the record had before it was a dead letter, or requeued."""
    return [(name, value) for name, value in headers if not name.startswith(HEADER_PREFIX) and name != REQUEUED]


def requeued_id(headers: Headers) -> str | None:
    """Return the id of the dead letter that a requeued record was; None for any other record."""
    said = [value for name, value in headers if name == REQUEUED and value is not None]
    return said[-1].decode(errors="replace") if said else None
