"""Records of older versions and of other writers, with the types that aren't flat scalars."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import oracle
from support.avro_cases import encode, make_family, record
from support.decoding import Known

from pipeline.decode.decoder import Decoder
from pipeline.decode.paths import COLUMNS, COMPILED, REFERENCE, WALK, field_path, version_path
from pipeline.errors import ConfigError, Reason
from pipeline.producer.encode import Encoder
from pipeline.schema.compatibility import problems
from pipeline.schema.framing import frame_confluent, frame_single_object
from pipeline.schema.versions import load_schemas

_COLOURS = ["red", "green"]


def _enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": list(symbols), **more}}


def _read(newest: Mapping[str, Any], older: Mapping[str, Any], *values: dict[str, Any]) -> tuple[Any, list[Reason]]:
    """Decode records of an older version; return their rows and the reasons of rejections."""
    family = make_family([dict(older), dict(newest)])
    frames: list[bytes | None] = [
        frame_single_object(family.schemas[0].fingerprint, encode(older, value)) for value in values
    ]
    rows = Decoder(family).decode(frames)
    return oracle.rows_of(rows), [rejection.reason for rejection in rows.rejections]


@pytest.mark.parametrize(
    ("newest", "older", "value", "expected"),
    [
        pytest.param({"type": ["null", "long"]}, {"type": "int"}, 7, 7, id="a number that may be null now"),
        pytest.param({"type": ["null", "double"]}, {"type": ["int", "null"]}, None, None, id="null at another place"),
        pytest.param({"type": ["null", "double"]}, {"type": ["int", "null"]}, 2, 2.0, id="a promoted number or null"),
        pytest.param(
            {"type": {"type": "array", "items": "double"}},
            {"type": {"type": "array", "items": "int"}},
            [1, 2],
            [1.0, 2.0],
            id="promoted items",
        ),
        pytest.param({"type": "string"}, {"type": ["null", "string"]}, "x", b"x", id="read by fastavro"),
        pytest.param(
            {"type": {"type": "fixed", "name": "F", "size": 2}},
            {"type": ["null", {"type": "fixed", "name": "F", "size": 2}]},
            b"ab",
            b"ab",
            id="fixed, read by fastavro",
        ),
        pytest.param(
            {"type": {"type": "map", "values": "string"}, "key_pattern": "[a-z]"},
            {"type": ["null", {"type": "map", "values": "string"}]},
            {"k": "v"},
            {b"k": b"v"},
            id="a map, read by fastavro",
        ),
    ],
)
def test_values_of_an_older_type_are_read_as_the_newest(newest: Any, older: Any, value: Any, expected: Any) -> None:
    """The column path promotes what it knows, and fastavro reads the rest, with the same rows."""
    family = make_family([record([{"name": "n", **newest}])])
    writer = record([{"name": "n", **older}])
    rows = Decoder(family, Known(writer)).decode([frame_confluent(0, encode(writer, {"n": value}))])
    assert rows.rejections == ()
    assert oracle.rows_of(rows) == [{"n": expected}]


def test_symbols_of_an_enum_are_read_by_name() -> None:
    """Another order, and more symbols, change no value."""
    rows, _ = _read(record([_enum("blue", "green", "red")]), record([_enum(*_COLOURS)]), {"colour": "red"})
    assert rows == [{"colour": b"red"}]


def test_a_symbol_that_is_gone_becomes_the_default_or_a_rejection() -> None:
    """As Avro has it: the reader's default stands for a symbol that it lacks."""
    older, value = record([_enum(*_COLOURS)]), {"colour": "red"}
    assert _read(record([_enum("green", default="green")]), older, value)[0] == [{"colour": b"green"}]
    assert _read(record([_enum("green")]), older, value) == ([], [Reason.NOT_IN_SET])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(_enum("red"), "symbols: expected green as before", id="a symbol gone"),
        pytest.param({"name": "colour", "type": "string"}, "can't be read as string", id="text for an enum"),
    ],
)
def test_a_narrowed_enum_is_incompatible(changes: dict[str, Any], expected: str) -> None:
    """Records of the older version would be rejected."""
    family = make_family([record([_enum(*_COLOURS)]), record([changes])])
    assert any(expected in str(problem) for problem in problems({"any": family.schemas}))


def test_null_that_was_allowed_stays_allowed() -> None:
    """A field that may be null can't become one that never is."""
    family = make_family([record([{"name": "n", "type": ["null", "int"]}]), record([{"name": "n", "type": "int"}])])
    assert "expected a union with null, as before" in " ".join(map(str, problems({"any": family.schemas})))


_VERSION = {"name": "schema_version", "type": "int", "default": 1}


def test_the_version_is_the_writers() -> None:
    """The encoder fills its schema's version; a record of a version without the field gets that version's number."""
    head = {"name": "n", "type": "int"}
    versions = [record([head]), record([head, _VERSION]), record([head, _VERSION, {**head, "name": "m", "default": 0}])]
    family = replace(make_family(versions), key="n")
    assert oracle.rows_of(Decoder(family).decode([Encoder(family).encode({"n": 1}).value]))[0]["schema_version"] == 3
    first = frame_single_object(family.schemas[0].fingerprint, encode(versions[0], {"n": 1}))
    assert oracle.rows_of(Decoder(family).decode([first]))[0]["schema_version"] == 1
    registered = Decoder(family, Known(versions[0])).decode([frame_confluent(0, encode(versions[0], {"n": 1}))])
    assert oracle.rows_of(registered)[0]["schema_version"] == 1


def test_the_way_of_each_field_and_version_is_named() -> None:
    """One field that the core doesn't know has the whole record read by numpy."""
    number, text = {"name": "n", "type": "int"}, {"name": "t", "type": ["null", "string"], "default": None}
    many = {"name": "l", "type": {"type": "array", "items": "int"}, "default": []}
    family = make_family([record([number]), record([number, text]), record([number, text, many])])
    assert [field_path(field) for field in family.schema.fields] == [COMPILED, COLUMNS, WALK]
    assert [version_path(family.schemas[:at], family.schemas[0]) for at in (1, 2, 3)] == [COMPILED, COLUMNS, WALK]
    odd = make_family([record([{"name": "n", "type": ["null", "int"]}]), record([number])])
    assert version_path(odd.schemas, odd.schemas[0]) == REFERENCE


def test_schemas_of_ones_own_stand_beside_the_others(tmp_path: Path) -> None:
    """They may be a new family, or a further version of another; the same version twice is refused."""
    ours, own = tmp_path / "ours", tmp_path / "own"
    for file in (ours / "thing.v1.avsc", own / "thing.v2.avsc", own / "other.v1.avsc"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(record([{"name": "n", "type": "int"}])), encoding="utf-8")
    assert {name: len(versions) for name, versions in load_schemas(ours, own).items()} == {"thing": 2, "other": 1}
    (own / "thing.v1.avsc").write_bytes((ours / "thing.v1.avsc").read_bytes())
    with pytest.raises(ConfigError, match="expected another version"):
        load_schemas(ours, own)
