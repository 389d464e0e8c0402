"""Writer schemas that must be refused, as a registry would return them."""

import json
from itertools import pairwise
from typing import Any

from pipeline.config import Settings
from pipeline.schema.versions import load_schemas
from pipeline.schema.writer_schema import MAX_DEPTH, MAX_SCHEMA_BYTES, MAX_TYPES

_NEWEST = load_schemas(Settings().schemas.directory)["ui_events"][-1].raw


def _event(*fields: Any, **others: Any) -> str:
    """A writer schema of ui_events with these extra fields, and other attributes replaced."""
    return json.dumps({**_NEWEST, "fields": [*_NEWEST["fields"], *fields], **others})


def _with(declared: Any, **others: Any) -> str:
    return _event({"name": "extra", "type": declared, **others})


def _nested(depth: int) -> Any:
    declared: Any = "int"
    for _ in range(depth):
        declared = {"type": "array", "items": declared}
    return declared


def _linked(*names: str) -> Any:
    """Records that contain each other in a circle."""
    declared: Any = names[0]
    for name in reversed(names):
        declared = {"type": "record", "name": name, "fields": [{"name": "next", "type": ["null", declared]}]}
    return declared


def chain(length: int) -> list[Any]:
    """Fields whose types each contain the one before twice: shallow, but of size 2^length."""
    names = ["int", *(f"R{number}" for number in range(length))]
    return [
        {"name": name.lower(), "type": {"type": "record", "name": name, "fields": _pair(before)}}
        for before, name in pairwise(names)
    ]


def _pair(declared: Any) -> list[Any]:
    return [{"name": "a", "type": declared}, {"name": "b", "type": declared}]


_INT = {"name": "a", "type": "int"}

WRITERS: dict[str, str] = {
    "no-json": '{"type": "record"',
    "nothing": "",
    "json-of-a-thousand-levels": "[" * 5000 + "]" * 5000,
    "an-object-without-a-type": "{}",
    "a-number": "7",
    "a-union": json.dumps(["null", "int"]),
    "no-fields": _event(fields=[]),
    "fields-that-are-none": _event(7, None),
    "a-field-without-a-type": _event({"name": "extra"}),
    "recursive": _with(_linked("Node")),
    "recursive-over-others": _with(_linked("A", "B", "C")),
    "recursive-in-itself": _with("UiEvent"),
    "recursive-by-its-full-name": _with(["null", "chimera.UiEvent"]),
    "deep": _with(_nested(MAX_DEPTH + 1)),
    "very-deep": _with(_nested(400)),
    "deep-by-names": _event(*chain(MAX_DEPTH)),
    "array-of-null": _with({"type": "array", "items": "null"}),
    "map-of-null": _with({"type": "map", "values": {"type": "null"}}),
    "array-of-empty-records": _with({"type": "array", "items": {"type": "record", "name": "E", "fields": []}}),
    "array-of-records-of-null": _with(
        {"type": "array", "items": {"type": "record", "name": "E", "fields": [{"name": "no", "type": "null"}]}}
    ),
    "array-of-fixed-of-no-bytes": _with({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}),
    "fixed-of-a-negative-size": _with({"type": "fixed", "name": "F", "size": -8}),
    "fixed-larger-than-memory": _with({"type": "fixed", "name": "F", "size": 2**63}),
    "fixed-of-a-size-that-is-true": _with({"type": "fixed", "name": "F", "size": True}),
    "a-field-of-null": _with("null"),
    "an-empty-union": _with([]),
    "a-union-in-a-union": _with(["null", ["int", "string"]]),
    "an-enum-without-symbols": _with({"type": "enum", "name": "E", "symbols": []}),
    "an-enum-of-equal-symbols": _with({"type": "enum", "name": "E", "symbols": ["A", "A"]}),
    "an-enum-of-numbers": _with({"type": "enum", "name": "E", "symbols": [1, {}]}),
    "a-giant-enum": _with({"type": "enum", "name": "E", "symbols": [f"S{n}" for n in range(40_000)]}),
    "too-many-fields": _event(*({"name": f"f{number}", "type": "int"} for number in range(MAX_TYPES))),
    "too-many-branches": _with(["null"] + [{"type": "array", "items": "int"}] * MAX_TYPES),
    "too-large": _event(_INT, doc="x" * MAX_SCHEMA_BYTES),
    "two-types-of-one-name": _event(
        *({"name": name, "type": {"type": "fixed", "name": "F", "size": 4}} for name in ("one", "two"))
    ),
    "a-type-named-like-a-primitive": _with({"type": "fixed", "name": "int", "size": 4}),
    "the-same-field-twice": _event(_INT, _INT),
    "a-name-that-is-none": _event({"name": "jo.public@example.org", "type": "int"}),
    "a-name-of-ten-thousand-letters": _event({"name": "x" * 10_000, "type": "int"}),
    "a-type-nobody-has-declared": _with("jo.public@example.org"),
    "a-type-that-is-an-object": _with({"type": {"type": "string"}}),
    "items-that-are-a-number": _with({"type": "array", "items": 7}),
    "parsed-by-fastavro-already": _event({"name": "extra", "type": 7}, __fastavro_parsed=True, __named_schemas={}),
    "a-default-that-is-a-bomb": _event(*({**field, "default": {}} for field in chain(MAX_DEPTH))),
    "another-record": _event(name="Other"),
    "without-what-is-required": _event(fields=[_INT]),
}
