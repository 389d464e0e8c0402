"""Show a dead letter: as text for a terminal or as a JSON object; values are masked by default.

Nothing that a producer wrote is printed unescaped, because it may hold control sequences for a terminal.
"""

import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

from pipeline.catalog import Family
from pipeline.dlq.content import Content
from pipeline.dlq.headers import CUT_PREFIX, HEADER_PREFIX, error_facts, own_headers
from pipeline.dlq.letters import DlqRecord, Letter, record_time
from pipeline.schema.fields import Field

_SHOWN_BYTES = 64
_CUT = CUT_PREFIX.removeprefix(HEADER_PREFIX)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MS = 253_402_300_800_000  # of the year 9999
_DAY_MS = 86_400_000
_MAX_DECIMAL_BYTES = 16
_DECIMAL_DIGITS = 40  # more than 16 bytes have


def described(family: Family, letter: Letter, record: DlqRecord, content: Content, *, unmask: bool) -> dict[str, Any]:
    """Describe a dead letter as a JSON object.

    Args:
        family: owner of the dead letter.
        letter: its entry in the index.
        record: the dead letter itself.
        content: the readable part of its value.
        unmask: show keys, values, and names and values of headers; otherwise only their lengths and types.
    """
    say = _readable if unmask else _masked
    facts = {} if letter.foreign else error_facts(record.headers)
    at = record_time(facts)
    source = f"{family.topic.name}:{letter.source_partition}:{letter.source_offset}"
    return {
        "source": None if letter.foreign else source,
        "dead_letter": f"{family.dead_letters.name}:{letter.partition}:{letter.offset}",
        "reason": letter.reason,
        "detail": facts.get("detail", ""),
        "timestamp": at and as_text(at),
        "failed_at": as_text(letter.failed_at),
        "attempts": letter.attempts,
        "copies": letter.copies,
        "state": letter.state,
        "left_out": {name[len(_CUT) :]: fact for name, fact in facts.items() if name.startswith(_CUT)},
        "schema": facts.get("schema", ""),
        "version": facts.get("version", ""),
        "key": say(record.key, None),
        "headers": [[say(name, None), say(value, None)] for name, value in own_headers(record.headers)],
        "bytes": None if record.value is None else len(record.value),
        "fields": {
            name if unmask else _masked_name(family, content, at, name): say(value, family.schema.by_name.get(name))
            for at, (name, value) in enumerate(content.fields.items(), 1)
        },
        "ends": content.ends,
        **({"begins": (record.value or b"")[:_SHOWN_BYTES].hex(" ")} if unmask and content.ends else {}),
    }


def lines(said: Mapping[str, Any]) -> Iterator[str]:
    """Make lines for a terminal of a description, without control sequences."""
    tries = f"{said['attempts']} {'try' if said['attempts'] == 1 else 'tries'}"
    copies = f", {said['copies']} copies" if said["copies"] > 1 else ""
    state = "" if said["state"] == "open" else f", {said['state']}"
    yield _plain(f"{said['source'] or said['dead_letter']}  {said['reason']}: {said['detail']}")
    yield _plain(f"  at         {said['failed_at']}, {tries}{copies}{state}, in {said['dead_letter']}")
    yield _plain(f"  schema     {said['schema'] or 'none'}, worker {said['version'] or 'unknown'}")
    yield f"  record     of {said['timestamp'] or 'an unknown time'}"
    yield f"  key        {_json(said['key'])}"
    for name, value in said["headers"]:
        yield f"  header     {_json(name)}: {_json(value)}"
    for name, fact in said["left_out"].items():
        yield _plain(f"  too large  without its {name}: {fact}")
    size = "null" if said["bytes"] is None else f"{said['bytes']:,} bytes"
    yield f"  value      {size}"
    blamed = said["detail"].partition(":")[0]
    for name, value in said["fields"].items():
        yield _plain(f"    {name:18} ") + _json(value) + ("   <- " + _plain(said["detail"]) if name == blamed else "")
    if said["ends"]:
        yield _plain(f"    here reading ends: {said['ends']}")
    if said.get("begins"):
        yield f"    it begins {said['begins']}"


def as_text(time: datetime, to: str = "milliseconds") -> str:
    """Format a time as ISO 8601, to the millisecond or as given."""
    return time.isoformat(timespec=to).replace("+00:00", "Z")


def _masked_name(family: Family, content: Content, at: int, name: str) -> str:
    """Return the name of a field, or its number and length if a producer may have written anything there."""
    known = not content.foreign or name in family.schema.by_name or list(content.fields) == ["text"]
    return name if known else f"member {at}, {len(name.encode())} bytes"


def _masked(value: Any, _: Field | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, (str, bytes)):
        return f"text, {len(value.encode())} bytes" if isinstance(value, str) else f"{len(value)} bytes"
    if isinstance(value, (list, dict)):
        return f"{'list' if isinstance(value, list) else 'object'} of {len(value)}"
    return "boolean" if isinstance(value, bool) else "number"


def _readable(value: Any, field: Field | None) -> Any:
    """Convert a value to JSON; amounts of money and times as people write them."""
    match value, field and field.logical_type:
        case int(), "timestamp-millis" if 0 <= value < _MAX_MS:
            return as_text(_EPOCH + timedelta(milliseconds=value))
        case int(), "timestamp-micros" if 0 <= value < _MAX_MS * 1000:
            return as_text(_EPOCH + timedelta(microseconds=value), "microseconds")
        case int(), "date" if 0 <= value < _MAX_MS // _DAY_MS:
            return (_EPOCH + timedelta(days=value)).date().isoformat()
        case bytes(), "decimal" if field and len(value) <= _MAX_DECIMAL_BYTES:
            unscaled = Decimal(int.from_bytes(value, "big", signed=True))
            return str(Context(prec=_DECIMAL_DIGITS).scaleb(unscaled, -field.scale))
    return _as_json(value)


def _as_json(value: Any) -> Any:
    match value:
        case bytes():
            return value.decode() if _is_text(value) else value.hex(" ")
        case float() if not math.isfinite(value):
            return str(value)
        case list():
            return [_as_json(item) for item in value]
        case dict():
            return {name: _as_json(item) for name, item in value.items()}
    return value


def _is_text(value: bytes) -> bool:
    try:
        return value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _json(value: Any) -> str:
    return json.dumps(value)  # ASCII: everything else is escaped


def _plain(text: str) -> str:
    """Replace control characters, also those beyond ASCII."""
    return "".join(char if char.isprintable() else "?" for char in text)
