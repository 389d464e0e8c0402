"""Makes the first schema of a family: from one event, or from nothing.

The types are guesses that fit the event. Each is a line in a file, to be read and changed before anything is published.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import uuid4

from pipeline.errors import ConfigError
from pipeline.schema.versions import VERSION_FIELD

TIME = "ts"
"""Field with the time of an event; tables are partitioned by its day."""

LAST_MS = 4_294_967_295_999
_UINT32 = 2**32 - 1
_INT64 = 2**63
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,127}")
_KEY = "^[A-Za-z_][A-Za-z0-9_.-]{0,63}$"
_HEX = re.compile(r"[0-9a-f]{32,64}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_FRACTION = re.compile(r"\.\d{4,6}")
_LONGEST = 1024
_METADATA_BYTES = 8192

Declaration = dict[str, Any]
_FREE_TEXT: Declaration = {"type": "string", "max_length": _LONGEST, "privacy": "text"}


class Draft(NamedTuple):
    """A new family's schema, the field that keys its records, and an event that fits."""

    schema: Declaration
    key: str
    example: dict[str, Any]


def draft(family: str, event: Mapping[str, Any] | None, key: str | None = None) -> Draft:
    """Draft the first schema of a family.

    Args:
        family: its name.
        event: one event as parsed JSON; None for a family from nothing.
        key: name of the field that keys the records; None for the first one with a UUID.

    Raises:
        ConfigError: a value has no column, or a name isn't one of Avro's; names the field.
    """
    example = dict(event) if event is not None else {"event_type": "example", "value": 1.5}
    ids = [name for name, value in example.items() if isinstance(value, str) and _UUID.fullmatch(value)]
    if key is not None and key not in ids:
        raise ConfigError(f"{family}: {key}: expected a field of the event with a UUID, to key its records")
    chosen = key or next(iter(ids), "event_id")
    made = {TIME: datetime.now(UTC).isoformat(timespec="milliseconds"), chosen: str(uuid4())}
    example = {**{name: example.pop(name, value) for name, value in made.items()}, **example}
    example.pop(VERSION_FIELD, None)
    fields = [_declared(name, value) for name, value in example.items()]
    if fields[0]["type"] != _time("timestamp-millis"):
        fields[0] = {"name": TIME, "type": _time("timestamp-millis"), "min": 0, "max": LAST_MS}
    fields[0]["doc"] = "When it happened, UTC."
    version = {
        "name": VERSION_FIELD,
        "type": "int",
        "doc": "Version of this schema.",
        "min": 0,
        "max": 255,
        "default": 1,
    }
    name = "".join(part.capitalize() for part in family.split("_"))
    schema = {"type": "record", "name": name, "namespace": "chimera", "doc": f"An event of {family}."}
    return Draft({**schema, "fields": [*fields, version]}, chosen, example)


def _declared(name: str, value: Any) -> Declaration:
    """Declare a field that accepts a value."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:40]!r}: expected a name of letters, digits and _, that begins with no digit")
    return {"name": name, **_of_value(name, value)}


def _of_value(name: str, value: Any) -> Declaration:
    for kind, declare in _BY_TYPE.items():
        if isinstance(value, kind):
            return declare(name, value)
    raise ConfigError(f"{name}: expected a value that JSON has")


def _of_number(name: str, value: int) -> Declaration:
    if not -_INT64 <= value < _INT64:
        raise ConfigError(f"{name}: {value}: expected at most 64 bits; send it as text")
    return {"type": "long"} if value < 0 else {"type": "long", "min": 0, "max": max(_UINT32, _wide(value))}


def _of_list(name: str, value: list[Any]) -> Declaration:
    return _of_members(name, "array", value)


def _of_object(name: str, value: dict[str, Any]) -> Declaration:
    members = list(value.values())
    if members and _alike(members) and all(re.fullmatch(_KEY, key) for key in value):
        return {**_of_members(name, "map", members), "key_pattern": _KEY}
    return {"type": "string", "max_length": _METADATA_BYTES, "privacy": {"metadata": {"keys": {}}}}


def _wide(value: int) -> int:
    return _INT64 - 1 if value > _UINT32 else 0


def _of_members(name: str, kind: str, values: list[Any]) -> Declaration:
    if not _alike(values):
        raise ConfigError(
            f"{name}: a list of objects, of lists or of different types has no column; send it as an object"
        )
    guesses = [_of_value(name, value) for value in values] or [_FREE_TEXT]
    declared = guesses[0] if all(guess == guesses[0] for guess in guesses) else _common(guesses)
    member = "items" if kind == "array" else "values"
    return {**declared, "type": {"type": kind, member: declared["type"]}, "max_items": 1000}


def _common(guesses: list[Declaration]) -> Declaration:
    """Declare members of one JSON type that were guessed differently."""
    return {"type": "long"} if all(guess["type"] == "long" for guess in guesses) else _FREE_TEXT


def _alike(values: list[Any]) -> bool:
    """True if values are scalars of one type."""
    scalar = all(isinstance(value, (bool, int, float, str)) for value in values)
    return scalar and all(type(one) is type(other) for one, other in pairwise(values))


def _of_text(name: str, value: str) -> Declaration:
    if _UUID.fullmatch(value):
        return {"type": {"type": "string", "logicalType": "uuid"}}
    if _is(datetime.fromisoformat, value) and datetime.fromisoformat(value).tzinfo is not None:
        unit, most = ("micros", LAST_MS * 1000) if _FRACTION.search(value) else ("millis", LAST_MS)
        return {"type": _time(f"timestamp-{unit}"), "min": 0, "max": most}
    if _DATE.fullmatch(value) and _is(date.fromisoformat, value):
        return {"type": {"type": "int", "logicalType": "date"}, "min": 0, "max": 65_535}
    if _HEX.fullmatch(value):
        return {"type": "string", "pattern": f"^[0-9a-f]{{{len(value)}}}$", "privacy": "keep"}
    if _TOKEN.fullmatch(value):
        return {"type": "string", "pattern": f"^{_TOKEN.pattern}$", "privacy": "text"}
    return {**_FREE_TEXT, "privacy": "user_agent" if name == "user_agent" else "text"}


def _is(parse: Any, text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _time(logical_type: str) -> Declaration:
    return {"type": "long", "logicalType": logical_type}


_BY_TYPE: dict[type, Callable[[str, Any], Declaration]] = {
    type(None): lambda _, __: {**_FREE_TEXT, "type": ["null", "string"], "default": None},
    bool: lambda _, __: {"type": "boolean"},  # before int, whose subtype it is
    int: _of_number,
    float: lambda _, __: {"type": "double"},
    str: _of_text,
    list: _of_list,
    dict: _of_object,
}
