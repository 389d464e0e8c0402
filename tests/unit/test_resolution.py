"""Every pair of a written type and a type of the newest schema: the value is read as it was meant, or rejected."""

from collections.abc import Callable
from typing import Any

import pytest
from support import oracle
from support.avro_cases import encode, make_family, record
from support.decoding import Known

from pipeline.decode.decoder import Decoder
from pipeline.errors import Reason
from pipeline.schema.framing import frame_confluent

_UUID = "6d9a30c2-15fe-4b7d-a2c8-0e74b95f1d36"


def _decimal(precision: Any, scale: Any, base: str = "bytes") -> dict[str, Any]:
    return {"type": base, "logicalType": "decimal", "precision": precision, "scale": scale}


def _logical(base: str, logical_type: str) -> dict[str, Any]:
    return {"type": base, "logicalType": logical_type}


_FIXED = {"type": "fixed", "name": "F", "size": 2}

WRITTEN: dict[str, tuple[Any, Any]] = {
    "boolean": ("boolean", True),
    "int": ("int", 1_700_000_000),
    "int date": (_logical("int", "date"), 19_000),
    "int time-millis": (_logical("int", "time-millis"), 5),
    "int timestamp-millis": (_logical("int", "timestamp-millis"), 5),
    "long": ("long", 1_700_000_000_000),
    "long timestamp-millis": (_logical("long", "timestamp-millis"), 1_700_000_000_000),
    "long timestamp-micros": (_logical("long", "timestamp-micros"), 1_700_000_000_000),
    "long timestamp-nanos": (_logical("long", "timestamp-nanos"), 1_700_000_000_000),
    "long time-micros": (_logical("long", "time-micros"), 5),
    "long local-timestamp-millis": (_logical("long", "local-timestamp-millis"), 1_700_000_000_000),
    "float": ("float", 1.5),
    "double": ("double", 2.5),
    "string": ("string", _UUID),
    "string uuid": (_logical("string", "uuid"), _UUID),
    "string decimal(10,6)": (_decimal(10, 6, "string"), "0.1"),
    "bytes": ("bytes", b"\x30\x39"),
    "bytes uuid": (_logical("bytes", "uuid"), _UUID.encode()),
    "bytes decimal(10,6)": (_decimal(10, 6), b"\x30\x39"),
    "bytes decimal(10,2)": (_decimal(10, 2), b"\x30\x39"),
    "bytes decimal(12,6)": (_decimal(12, 6), b"\x30\x39"),
    "bytes decimal(10,-1)": (_decimal(10, "6"), b"\x30\x39"),
    "bytes big-decimal": (_logical("bytes", "big-decimal"), b"\x30\x39"),
    "fixed": (_FIXED, b"\x30\x39"),
    "fixed decimal(10,6)": (_FIXED | _decimal(10, 6, "fixed"), b"\x30\x39"),
    "fixed duration": ({"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}, b"\0" * 12),
    "enum": ({"type": "enum", "name": "E", "symbols": ["A"]}, "A"),
    "array": ({"type": "array", "items": "int"}, [1]),
    "map": ({"type": "map", "values": "int"}, {"a": 1}),
    "record": ({"type": "record", "name": "R", "fields": [{"name": "at", "type": "int"}]}, {"at": 1}),
}
"""Description to declaration and a value."""

_MILLISECONDS, _TEXT = 1_700_000_000_000, _UUID.encode()
READABLE: dict[str, tuple[Any, dict[str, Any]]] = {
    "boolean": ("boolean", {"boolean": True}),
    "int": ("int", {"int": 1_700_000_000}),
    "long": ("long", {"int": 1_700_000_000, "long": _MILLISECONDS}),
    "float": ("float", {"int": 1_700_000_000.0, "long": 1_700_000_038_912.0, "float": 1.5}),
    "double": ("double", {"int": 1.7e9, "long": 1.7e12, "float": 1.5, "double": 2.5}),
    "string": ("string", {"string": _TEXT, "bytes": b"09"}),
    "bytes": ("bytes", {"string": _TEXT, "bytes": b"09"}),
    "string uuid": (
        _logical("string", "uuid"),
        {"string": bytes.fromhex(_UUID.replace("-", "")), "string uuid": bytes.fromhex(_UUID.replace("-", ""))},
    ),
    "long timestamp-millis": (
        _logical("long", "timestamp-millis"),
        {"long": _MILLISECONDS, "long timestamp-millis": _MILLISECONDS},
    ),
    "bytes decimal(10,6)": (_decimal(10, 6), {"bytes": 12_345, "bytes decimal(10,6)": 12_345}),
    "bytes decimal(10,0)": (_decimal(10, 0), {"bytes": 12_345}),
}
"""Type of the newest schema to its declaration, and the readable written types with the value of the row."""

FORMS: dict[str, Callable[[Any], list[dict[str, Any]]]] = {
    "columnar": lambda declared: [{"name": "a", "type": declared}],
    "beside a union": lambda declared: [{"name": "b", "type": ["null", "int"]}, {"name": "a", "type": declared}],
    "nullable": lambda declared: [{"name": "b", "type": ["null", "int"]}, {"name": "a", "type": ["null", declared]}],
}
"""Name to the fields of a writer schema; only the first is read by columns, the others by fastavro."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wanted", READABLE)
def test_a_written_value_is_read_as_it_was_meant_or_rejected_with_field_and_types(wanted: str, form: str) -> None:
    """Each pair of types gives the value of this table, or wrong_schema with field, written type and scale."""
    declared, readable = READABLE[wanted]
    newest = make_family([record([{"name": "a", "type": declared}])])
    for written, (writer_type, value) in WRITTEN.items():
        if (wanted, written) == ("string uuid", "bytes"):  # read as text, which test_bytes_that_spell_a_uuid covers
            continue
        writer = record(FORMS[form](writer_type))
        rows = Decoder(newest, Known(writer)).decode([frame_confluent(0, encode(writer, {"a": value, "b": None}))])
        if written in readable:
            assert oracle.rows_of(rows) == [{"a": readable[written]}], written
            continue
        [rejection] = rows.rejections
        assert rejection.reason is Reason.WRONG_SCHEMA
        shown = f"[null, {written}]" if form == "nullable" else written
        assert rejection.detail == f"a: {shown} can't be read as {wanted}"


def test_bytes_that_spell_a_uuid_are_read_as_text() -> None:
    """Bytes are promoted to the text of a UUID; the 16 bytes of one are rejected."""
    newest = make_family([record([{"name": "a", "type": _logical("string", "uuid")}])])
    writer = record([{"name": "a", "type": "bytes"}])
    octets = bytes.fromhex(_UUID.replace("-", ""))
    bodies = [encode(writer, {"a": value}) for value in (_UUID.encode(), octets)]
    rows = Decoder(newest, Known(writer)).decode([frame_confluent(0, body) for body in bodies])
    assert oracle.rows_of(rows) == [{"a": octets}]
    assert [rejection.reason for rejection in rows.rejections] == [Reason.INVALID_UTF8]


@pytest.mark.parametrize(
    ("name", "other", "value"),
    [("string", "string", "0.1"), ("null", "null", None), ("fixed", _FIXED, b"\0\1")],
    ids=["string", "null", "fixed"],
)
def test_each_value_of_a_union_is_judged_by_its_branch(name: str, other: Any, value: Any) -> None:
    """A union with a readable branch gives rows of its values, and rejects the others with field and type."""
    newest = make_family([record([{"name": "a", "type": _decimal(10, 6)}])])
    writer = record([{"name": "a", "type": ["bytes", other]}])
    bodies = [b"\0" + b"\x02\x01", b"\x02" + encode(record([{"name": "a", "type": other}]), {"a": value})]
    rows = Decoder(newest, Known(writer)).decode([frame_confluent(0, body) for body in bodies])
    assert oracle.rows_of(rows) == [{"a": 1}]
    problem = f"a: {name} can't be read as bytes decimal(10,6)"
    assert [(rejection.position, rejection.detail) for rejection in rows.rejections] == [(1, problem)]


@pytest.mark.parametrize("branches", [["bytes"], ["null", "bytes"], ["bytes", "null"]], ids=str)
@pytest.mark.parametrize(
    "beside", [_decimal(10, 2), _logical("bytes", "big-decimal")], ids=["another scale", "another meaning"]
)
def test_a_logical_type_beside_the_type_counts(beside: dict[str, Any], branches: list[str]) -> None:
    """A writer that declares the logical type on the field, where Avro ignores it, isn't misread."""
    newest = make_family([record([{"name": "a", "type": _decimal(10, 6)}])])
    writer = record([beside | {"name": "a", "type": branches[0] if len(branches) == 1 else branches}])
    [rejection] = Decoder(newest, Known(writer)).decode([frame_confluent(0, b"\x02\x01")]).rejections
    assert rejection.reason is Reason.WRONG_SCHEMA
    assert rejection.detail.startswith("a: ")
    assert f"bytes {beside['logicalType']}" in rejection.detail


def test_a_right_logical_type_beside_a_union_is_read() -> None:
    """It says the same as within the branch; null isn't a value of the field."""
    newest = make_family([record([{"name": "a", "type": _decimal(10, 6)}])])
    writer = record([_decimal(10, 6) | {"name": "a", "type": ["null", "bytes"]}])
    rows = Decoder(newest, Known(writer)).decode([frame_confluent(0, b"\x02\x02\x01"), frame_confluent(0, b"\0")])
    assert oracle.rows_of(rows) == [{"a": 1}]
    assert [rejection.position for rejection in rows.rejections] == [1]


@pytest.mark.parametrize("scale", [2, 6])
def test_sizes_of_a_decimal_count_without_its_name(scale: int) -> None:
    """Some libraries leave out the logical type and keep the sizes; others know it under a misspelled name."""
    newest = make_family([record([{"name": "a", "type": _decimal(10, 6)}])])
    writer = record([{"name": "a", "type": {"type": "bytes", "precision": 10, "scale": scale}}])
    rows = Decoder(newest, Known(writer)).decode([frame_confluent(0, b"\x02\x01")])
    assert oracle.rows_of(rows) == ([{"a": 1}] if scale == 6 else [])
    problems = [] if scale == 6 else ["a: bytes decimal(10,2) can't be read as bytes decimal(10,6)"]
    assert [rejection.detail for rejection in rows.rejections] == problems
