"""The fields of a record for people: masked, or as people write them; nothing steers a terminal."""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

from pipeline.catalog import Family
from pipeline.dlq.content import Content
from pipeline.schema.fields import Field

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MS = 253_402_300_800_000  # of the year 9999
_DAY_MS = 86_400_000
_MAX_DECIMAL_BYTES = 16
_DECIMAL_DIGITS = 40  # more than 16 bytes have


def shown_fields(family: Family, content: Content, *, unmask: bool) -> dict[str, Any]:
    """Return the fields of a value by name; without `unmask`, only type and length of each."""
    say = readable if unmask else masked
    return {
        name if unmask else _name(family, content, at, name): say(value, family.schema.by_name.get(name))
        for at, (name, value) in enumerate(content.fields.items(), 1)
    }


def field_line(name: str, value: Any) -> str:
    """Make a line of a field."""
    return plain(f"    {name:18} ") + as_json(value)


def as_json(value: Any) -> str:
    """Write a value as JSON in ASCII: everything else is escaped."""
    return json.dumps(value)


def plain(text: str) -> str:
    """Replace control characters, also those beyond ASCII."""
    return "".join(char if char.isprintable() else "?" for char in text)


def as_text(time: datetime, to: str = "milliseconds") -> str:
    """Format a time as ISO 8601, to the millisecond or as given."""
    return time.isoformat(timespec=to).replace("+00:00", "Z")


def ms_as_text(ms: int) -> str:
    """Format milliseconds since 1970 as ISO 8601; a time that no calendar has stays a number."""
    return as_text(_EPOCH + timedelta(milliseconds=ms)) if 0 <= ms < _MAX_MS else str(ms)


def _name(family: Family, content: Content, at: int, name: str) -> str:
    """Return the name of a field, or its number and length if a producer may have written anything there."""
    known = not content.foreign or name in family.schema.by_name or list(content.fields) == ["text"]
    return name if known else f"member {at}, {len(name.encode())} bytes"


def masked(value: Any, _: Field | None) -> str:
    """Return type and length of a value."""
    if value is None:
        return "null"
    if isinstance(value, (str, bytes)):
        return f"text, {len(value.encode())} bytes" if isinstance(value, str) else f"{len(value)} bytes"
    if isinstance(value, (list, dict)):
        return f"{'list' if isinstance(value, list) else 'object'} of {len(value)}"
    return "boolean" if isinstance(value, bool) else "number"


def readable(value: Any, field: Field | None) -> Any:
    """Convert a value to JSON; amounts of money and times as people write them, also in lists and maps."""
    match value, field and field.logical_type:
        case list(), _:
            return [readable(item, field and field.items) for item in value]
        case dict(), _:
            return {name: readable(item, field and field.items) for name, item in value.items()}
        case int(), str(unit) if unit in _TIMES and 0 <= value < _TIMES[unit][0]:
            return _TIMES[unit][1](value)
        case bytes(), "decimal" if field and len(value) <= _MAX_DECIMAL_BYTES:
            unscaled = Decimal(int.from_bytes(value, "big", signed=True))
            return f"{Context(prec=_DECIMAL_DIGITS).scaleb(unscaled, -field.scale):f}"
    return _as_json(value)


_TIMES: Mapping[str, tuple[int, Callable[[int], str]]] = {
    "timestamp-millis": (_MAX_MS, ms_as_text),
    "timestamp-micros": (_MAX_MS * 1000, lambda us: as_text(_EPOCH + timedelta(microseconds=us), "microseconds")),
    "date": (_MAX_MS // _DAY_MS, lambda days: (_EPOCH + timedelta(days=days)).date().isoformat()),
    "time-millis": (_DAY_MS, lambda ms: (_EPOCH + timedelta(milliseconds=ms)).time().isoformat("milliseconds")),
    "time-micros": (_DAY_MS * 1000, lambda us: (_EPOCH + timedelta(microseconds=us)).time().isoformat("microseconds")),
}
"""First value that no calendar has, and text of a value, by logical type."""


def _as_json(value: Any) -> Any:
    match value:
        case bytes():
            return value.decode() if _is_text(value) else value.hex(" ")
        case float() if not math.isfinite(value):
            return str(value)
    return value


def _is_text(value: bytes) -> bool:
    try:
        return value.decode().isprintable()
    except UnicodeDecodeError:
        return False
