"""The files of a new family and of a new version: schema, CREATE TABLE and ALTER TABLE, sample events."""

import random
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from support.avro_cases import make_family, record

from pipeline.clickhouse.ddl import alter_table, create_table, drop_retired
from pipeline.decode.decoder import Decoder
from pipeline.errors import ConfigError
from pipeline.producer.encode import Encoder
from pipeline.producer.sample.generated import generated
from pipeline.schema.compatibility import problems
from pipeline.schema.infer import draft

_EVENT: dict[str, Any] = {
    "ts": "2026-11-29T10:00:00Z",
    "order_id": "6d9a30c2-15fe-4b7d-a2c8-0e74b95f1d36",
    "at": "2026-11-29T10:00:00.123456Z",
    "day": "2026-11-29",
    "total": 9.5,
    "count": 3,
    "balance": -3,
    "huge": 2**40,
    "paid": True,
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "sku": "AB-12",
    "name": "Some text, free",
    "user_agent": "Mozilla/5.0 (X11)",
    "tags": ["a", "b c"],
    "amounts": {"x": 1, "y": -2},
    "extra": {"a": [1, {"b": 2}]},
    "nothing": None,
    "none": [],
}
_COLUMNS = {
    "at": "DateTime64(6, 'UTC')",
    "day": "Date32",
    "total": "Float64",
    "count": "UInt32",
    "balance": "Int64",
    "huge": "UInt64",
    "paid": "Bool",
    "commit": "FixedString(40)",
    "sku": "String",
    "tags": "Array(String)",
    "amounts": "Map(String, Int64)",
    "extra": "String",
    "nothing": "Nullable(String)",
    "none": "Array(String)",
    "schema_version": "UInt8",
}


def test_a_draft_accepts_its_event() -> None:
    """The schema of an event is compatible with itself, and the worker takes the event and samples made from it."""
    made = draft("orders", _EVENT)
    assert made.key == "order_id"
    family = replace(make_family([made.schema]), key=made.key)
    assert problems({"any": family.schemas}) == ()
    statement = create_table(family.schema, "orders", made.key)
    assert {name: column for name, column in _COLUMNS.items() if f"`{name}` {column}" not in statement} == {}
    samples = islice(generated(family.schema, [made.example], random.Random(1)), 50)
    values: list[bytes | None] = [Encoder(family).encode(event).value for event in (made.example, *samples)]
    assert len(Decoder(family).decode(values)) == len(values)


def test_a_draft_from_nothing_has_a_time_and_a_key() -> None:
    """Both are added, and so is the version."""
    made = draft("orders", None)
    assert [field["name"] for field in made.schema["fields"]] == [
        "ts",
        "event_id",
        "event_type",
        "value",
        "schema_version",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param([{"a": 1}], "no column", id="a list of objects"),
        pytest.param([1, "a"], "no column", id="a list of two types"),
        pytest.param(2**64, "at most 64 bits", id="a number beyond 64 bits"),
    ],
)
def test_a_value_without_a_column_is_refused(value: Any, expected: str) -> None:
    """The message names the field."""
    with pytest.raises(ConfigError, match=rf"^odd: .*{expected}"):
        draft("orders", {"odd": value})


@pytest.mark.parametrize(
    ("declared", "default"),
    [
        pytest.param({"type": "boolean", "default": True}, "true", id="boolean"),
        pytest.param({"type": "string", "default": "it's", "privacy": "text"}, r"'it\'s'", id="text"),
        pytest.param({"type": ["null", "int"], "default": None}, "NULL", id="null"),
        pytest.param(
            {"type": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2}, "default": "\u0004Ò"},
            "'12.34'",
            id="decimal",
        ),
        pytest.param({"type": {"type": "int", "logicalType": "date"}, "default": 1}, "'1970-01-02'", id="date"),
        pytest.param({"type": {"type": "array", "items": "int"}, "default": [1, 2]}, "[1, 2]", id="list"),
        pytest.param(
            {"type": {"type": "map", "values": "int"}, "key_pattern": "a", "default": {"a": 1}}, "map('a', 1)", id="map"
        ),
    ],
)
def test_an_added_field_is_a_column_with_its_default(declared: dict[str, Any], default: str) -> None:
    """So workers of the older version, which don't fill it, run on."""
    number = {"name": "n", "type": "int"}
    older, newer = make_family([record([number]), record([number, {"name": "added", **declared}])]).schemas
    statement = alter_table(older, newer, "orders")
    assert "ADD COLUMN IF NOT EXISTS `added` " in statement
    assert statement.endswith(f" DEFAULT {default};\n")


def test_a_version_without_a_change_of_columns_needs_no_statement() -> None:
    """Wider bounds within the column's type change nothing."""
    narrow, wide = ({"name": "n", "type": "int", "min": 0, "max": most} for most in (100, 200))
    older, newer = make_family([record([narrow]), record([wide])]).schemas
    assert alter_table(older, newer, "orders") == ""
    assert drop_retired((older, newer), "orders") == ""
