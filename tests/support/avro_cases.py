"""Hypothesis strategies for the decoder: families with any flat schemas, their records, and damaged bytes."""

import io
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
from hypothesis import strategies as st

from pipeline.catalog import BatchPolicy, Family, TopicSpec
from pipeline.schema.resolution import PROMOTIONS
from pipeline.schema.versions import Schema, load_schemas
from support.oracle import without_logical_types

_HEX_PATTERN = "^[0-9a-f]{8}$"
_SLUG_PATTERN = "^[a-z][a-z0-9-]{0,15}$"
_WORDS = ["open", "shut", "ajar", "größer", ""]


@dataclass(frozen=True)
class Case:
    """A family, the version that its records were written with, and their bodies."""

    family: Family
    writer: Schema
    bodies: list[bytes]

    def __repr__(self) -> str:
        return f"newest={self.family.schema.raw}\nwriter={self.writer.raw}\nbodies={self.bodies}"


def make_family(versions: Sequence[dict[str, Any]]) -> Family:
    """Make a family of these schemas, oldest first, by loading them from files."""
    with tempfile.TemporaryDirectory() as directory:
        for number, schema in enumerate(versions, 1):
            Path(directory, f"any.v{number}.avsc").write_text(json.dumps(schema), encoding="utf-8")
        schemas = load_schemas(Path(directory))["any"]
    batch = BatchPolicy(max_rows=1, max_bytes=1024, linger_seconds=1)
    topic = TopicSpec(
        name="any", partitions=1, replication=1, retention_hours=1, max_message_bytes=1 << 20, timestamps="broker"
    )
    dead_letters = topic.model_copy(update={"name": "any.dlq", "max_message_bytes": 1 << 21})
    return Family("any", topic, "id", "any", dead_letters, batch, schemas)


def record(fields: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make a record schema."""
    return {"type": "record", "name": "Any", "fields": list(fields)}


def encode(schema: Any, value: dict[str, Any]) -> bytes:
    """Encode a value of physical types as an Avro body, unframed and unchecked."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(without_logical_types(schema), _write_hint=False), value)
    return stream.getvalue()


@st.composite
def cases(draw: st.DrawFn, *, corrupt: bool) -> Case:
    """Draw a family of two versions and records of one of them; `corrupt` damages most records."""
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True))
    newest = record([draw(_fields(name)) for name in names])
    older = record(draw(_older(newest["fields"])))
    family = make_family([older, newest])
    writer = draw(st.sampled_from(family.schemas))
    declared = {field["name"]: field for field in newest["fields"]}
    values = st.fixed_dictionaries(
        {field["name"]: _of_type(field["type"], declared.get(field["name"], field)) for field in writer.raw["fields"]}
    )
    bodies = [encode(writer.raw, value) for value in draw(st.lists(values, min_size=1, max_size=8))]
    if corrupt:
        bodies = [draw(damaged(body)) for body in bodies]
    return Case(family, writer, bodies)


@st.composite
def damaged(draw: st.DrawFn, body: bytes) -> bytes:
    """Draw a body in which other bytes replace a stretch: flipped, cut, inserted, or a lying varint."""
    start = draw(st.integers(0, len(body)))
    stop = draw(st.integers(start, min(len(body), start + 12)))
    lies = [
        b"\x80" * 10 + b"\x01",
        b"\xff" * 9 + b"\x01",
        b"\xff" * 9 + b"\x02",
        b"\x80\x00",
        b"\x01",
        b"\xfe\xff\xff\xff\x1f",
    ]
    flipped = st.integers(0, 7).map(lambda bit: bytes(octet ^ 1 << bit for octet in body[start:stop]))
    filling = draw(st.one_of(flipped, st.binary(max_size=12), st.sampled_from(lies)))
    rest = draw(st.sampled_from([body[stop:], body[stop:], body[stop:], b""]))
    return body[:start] + filling + rest


@st.composite
def _fields(draw: st.DrawFn, name: str) -> dict[str, Any]:
    field = {"name": name, **draw(st.one_of(_plain(), _number(), _text(), _logical(), _named(name), _composed(name)))}
    if draw(st.booleans()):
        field["default"] = draw(_default(field))
    return field


def _default(field: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Draw a default as JSON writes it."""
    declared = field["type"]
    if isinstance(declared, list) and declared[0] == "null":
        return st.none()
    if isinstance(declared, dict) and declared["type"] in {"array", "map"}:
        return st.just([] if declared["type"] == "array" else {})
    values = _of_type(declared[0] if isinstance(declared, list) else declared, field)
    return values.filter(_is_json).map(lambda value: value.decode("latin-1") if isinstance(value, bytes) else value)


def _is_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _plain() -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from([{"type": "boolean"}, {"type": "bytes"}])


@st.composite
def _number(draw: st.DrawFn) -> dict[str, Any]:
    avro_type = draw(st.sampled_from(["int", "long", "float", "double"]))
    bounds = st.integers(-300, 300) | st.floats(-300, 300) | st.sampled_from([2**40, -(2**70), 1e300])
    declared = draw(st.fixed_dictionaries({}, optional={"min": bounds, "max": bounds}))
    return {"type": avro_type, **dict(zip(sorted(declared, reverse=True), sorted(declared.values()), strict=True))}


def _text() -> st.SearchStrategy[dict[str, Any]]:
    declared: list[dict[str, Any]] = [
        {},
        {"max_length": 5},
        {"pattern": _HEX_PATTERN},
        {"pattern": _SLUG_PATTERN, "max_length": 9},
        {"values": _WORDS},
    ]
    return st.sampled_from(declared).map(lambda attributes: {"type": "string", **attributes})


@st.composite
def _logical(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["uuid", "timestamp-millis", "timestamp-micros", "date", "time-millis", "decimal"]))
    if kind == "uuid":
        return {"type": {"type": "string", "logicalType": "uuid"}}
    if kind in {"date", "time-millis"}:
        return {"type": {"type": "int", "logicalType": kind}}
    if kind != "decimal":
        return {"type": {"type": "long", "logicalType": kind}, "min": 0, "max": 4294967295999}
    precision = draw(st.integers(1, 38))
    scale = draw(st.integers(0, precision))
    bounds = st.fixed_dictionaries({}, optional={"min": st.sampled_from(["0", "-0.5"]), "max": st.just("99.5")})
    declared = {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
    return {"type": declared, **draw(bounds)}


def _named(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Draw an enum, bytes of a fixed size, or a decimal in such bytes."""
    fixed = {"type": "fixed", "name": f"Fixed_{name}", "size": 9}
    return st.sampled_from(
        [
            {"type": {"type": "enum", "name": f"Enum_{name}", "symbols": ["open", "shut", "ajar"]}},
            {"type": fixed},
            {"type": {**fixed, "logicalType": "decimal", "precision": 20, "scale": 3}},
        ]
    )


@st.composite
def _composed(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Draw a scalar or null, a list or a map."""
    scalar = draw(st.one_of(_plain(), _number(), _text(), _logical(), _named(name)))
    avro_type = scalar["type"]
    match draw(st.sampled_from(["null first", "null last", "array", "map"])):
        case "null first":
            return {**scalar, "type": ["null", avro_type]}
        case "null last":
            return {**scalar, "type": [avro_type, "null"]}
        case "array":
            return {**scalar, "type": {"type": "array", "items": avro_type}, "max_items": 3}
    return {**scalar, "type": {"type": "map", "values": avro_type}, "key_pattern": _SLUG_PATTERN}


@st.composite
def _older(draw: st.DrawFn, newest: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Draw fields of an older version: some are missing, some narrower, some dropped later."""
    older = []
    for field in newest:
        if "default" in field and draw(st.booleans()):
            continue
        declared = field["type"]
        if isinstance(declared, list) and draw(st.booleans()):  # a field that may be null now
            declared = next(branch for branch in declared if branch != "null")
        promoted = isinstance(declared, str) or "uuid" in str(declared)
        simple = declared if isinstance(declared, str) else "string"
        narrower = None
        if promoted and not isinstance(declared, list) and "items" not in declared and "values" not in declared:
            narrower = draw(st.sampled_from([None, *sorted(PROMOTIONS.get(simple, ()))]))
        pattern = {key: field[key] for key in ("key_pattern",) if key in field}
        older.append({"name": field["name"], "type": narrower or declared, **pattern})
    dropped = st.sampled_from(["boolean", "int", "long", "float", "double", "string", "bytes"])
    older += [{"name": name, "type": draw(dropped)} for name in draw(st.sets(st.sampled_from("xyz")))]
    return list(draw(st.permutations(older))) or [{"name": "x", "type": "int"}]


def _of_type(avro_type: Any, field: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Draw values of any type; many of them keep the field's conditions."""
    match avro_type:
        case [*branches]:
            value = next(branch for branch in branches if branch != "null")
            return st.none() | _of_type(value, field)
        case {"type": "array", "items": items}:
            return st.lists(_of_type(items, field), max_size=4)
        case {"type": "map", "values": values}:
            keys = st.from_regex(_SLUG_PATTERN, fullmatch=True) | st.text(max_size=3)
            return st.dictionaries(keys, _of_type(values, field), max_size=3)
        case {"type": "enum", "symbols": symbols}:
            return st.sampled_from(symbols)
        case {"type": "fixed", "size": size}:
            return st.binary(min_size=size, max_size=size)
    physical = avro_type["type"] if isinstance(avro_type, dict) else avro_type
    return _values(physical, {**field, "type": avro_type})


def _values(avro_type: str, field: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Draw values of the Avro type, many of them within the field's bounds."""
    small = st.integers(-300, 300)
    values: dict[str, st.SearchStrategy[Any]] = {
        "boolean": st.booleans(),
        "int": small | st.integers(-(2**31), 2**31 - 1),
        "long": small | st.integers(-(2**63), 2**63 - 1),
        "float": st.floats(-300, 300, width=32) | st.floats(width=32),
        "double": st.floats(-300, 300) | st.floats(),
        "string": _strings(field),
        "bytes": _decimals() | st.binary(max_size=12) | _strings(field).map(str.encode),
    }
    return values[avro_type]


def _strings(field: dict[str, Any]) -> st.SearchStrategy[str]:
    if "logicalType" in field["type"]:
        fitting = st.uuids().map(str) | st.uuids().map(lambda value: str(value).upper())
    elif "values" in field:
        fitting = st.sampled_from(field["values"])
    elif "pattern" in field:
        fitting = st.from_regex(field["pattern"], fullmatch=True)
    else:
        fitting = st.text(max_size=6)
    return st.one_of(fitting, fitting, fitting, st.text(max_size=12))


def _decimals() -> st.SearchStrategy[bytes]:
    """Draw two's complement numbers, often with redundant leading bytes."""
    number = st.integers(-(10**4), 10**4) | st.integers(-(10**19), 10**19)
    return st.tuples(number, st.integers(0, 8)).map(
        lambda pair: pair[0].to_bytes(pair[0].bit_length() // 8 + 1 + pair[1], "big", signed=True)
    )
