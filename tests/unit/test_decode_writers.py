"""Records of other writer schemas: older, registered, nested, and schemas that must not be used."""

import time
from typing import Any

import pytest
from hostile.writers import WRITERS, chain
from support import oracle
from support.avro_cases import encode, make_family, record
from support.decoding import (
    ANY,
    BODY,
    FAMILY,
    GOOD,
    ROW,
    Known,
    Registered,
    Silent,
    assert_as_expected,
    cuts,
    flips,
    good,
)

from pipeline.catalog import load_catalog
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.errors import Reason, UnavailableError
from pipeline.schema.fields import PRIMITIVES
from pipeline.schema.framing import frame_confluent, frame_single_object
from pipeline.schema.writer_schema import MAX_DEPTH

OLD = record([field for field in ANY["fields"] if field["name"] != "note"] + [{"name": "gone", "type": "bytes"}])
NULLABLE = record([field | {"type": ["null", field["type"]]} for field in ANY["fields"]])
NESTED = record(
    [
        {"name": "sizes", "type": {"type": "array", "items": "int"}},
        {"name": "names", "type": {"type": "map", "values": ["null", "string"]}},
        {"name": "from", "type": {"type": "record", "name": "From", "fields": [{"name": "at", "type": "double"}]}},
        {"name": "mood", "type": {"type": "enum", "name": "Mood", "symbols": ["GOOD", "BAD"]}},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 2}},
        {"name": "past", "type": ["null", "From"]},
        *OLD["fields"][:-1],
    ]
)
EXTRA = {"sizes": [1, 2], "names": {"a": "b"}, "from": {"at": 1.5}, "mood": "BAD", "hash": b"xy", "past": {"at": 2.5}}


def test_rows_of_all_writer_schemas_keep_the_order_of_the_batch() -> None:
    """Rows keep the order of the micro-batch across the newest, an older, a registered and foreign writer schemas."""
    registry = Known(OLD, NULLABLE, NESTED, ANY | {"name": "Other"})
    family = make_family([OLD, ANY])
    old, new = family.schemas
    foreign = GOOD | EXTRA | {"gone": b"?"}
    rows = Decoder(family, registry).decode(
        [
            frame_confluent(2, encode(NESTED, foreign)),
            frame_single_object(new.fingerprint, BODY),
            frame_confluent(3, BODY),
            frame_single_object(old.fingerprint, encode(OLD, foreign | {"slug": "old"})),
            frame_confluent(4, BODY),
            frame_confluent(1, encode(NULLABLE, GOOD | {"kind": "open"})),
            None,
            frame_confluent(1, encode(NULLABLE, GOOD | {"count": None})),
            frame_confluent(0, encode(OLD, foreign | {"count": 0})),
            frame_confluent(2, encode(NESTED, foreign | {"count": 11})),
        ]
    )
    unwritten = ROW | {"note": b"none"}
    assert rows.positions.tolist() == [0, 1, 3, 5, 8]
    assert oracle.rows_of(rows) == [
        unwritten,
        ROW,
        unwritten | {"slug": b"old"},
        ROW | {"kind": b"open"},
        unwritten | {"count": 0},
    ]
    assert [(rejection.position, rejection.reason) for rejection in rows.rejections] == [
        (2, Reason.WRONG_SCHEMA),
        (4, Reason.UNKNOWN_SCHEMA),
        (6, Reason.TOMBSTONE),
        (7, Reason.WRONG_SCHEMA),
        (9, Reason.OUT_OF_BOUNDS),
    ]


@pytest.mark.parametrize("schema", [NULLABLE, NESTED], ids=["nullable", "nested"])
def test_a_damaged_foreign_record_gets_the_verdict_of_the_oracle(schema: Any) -> None:
    """The decoder also rejects the bytes that only fastavro would accept."""
    body = encode(schema, GOOD | EXTRA)
    damaged = [*cuts(body), *flips(body)]
    rows = Decoder(FAMILY, Known(schema)).decode([frame_confluent(0, one) for one in damaged])
    assert_as_expected(rows, [oracle.read(schema, FAMILY.schema, one) for one in damaged])


def _changed(name: str, declared: Any) -> Any:
    return record([field | {"type": declared} if field["name"] == name else field for field in ANY["fields"]])


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param("string", id="no-record"),
        pytest.param({"type": "record", "name": "Any"}, id="no-fields"),
        pytest.param(record([ANY["fields"][0], *ANY["fields"]]), id="the-same-field-twice"),
        pytest.param(ANY | {"name": "Other"}, id="another-name"),
        pytest.param(record(ANY["fields"][1:]), id="without-a-required-field"),
        pytest.param(_changed("count", "string"), id="another-type"),
        pytest.param(_changed("count", "long"), id="a-wider-type"),
        pytest.param(_changed("price", ANY["fields"][7]["type"] | {"scale": 3}), id="another-scale"),
        pytest.param(_changed("count", ["null", {"type": "int", "logicalType": "date"}]), id="another-meaning"),
        pytest.param(_changed("count", "undefined"), id="an-undefined-type"),
    ],
)
def test_records_of_a_schema_that_does_not_resolve_are_rejected(schema: Any) -> None:
    """All its records are rejected, and the registry is asked once."""
    registry = Known(schema)
    decoder = Decoder(FAMILY, registry)
    for _ in range(2):
        assert [rejection.reason for rejection in decoder.decode([frame_confluent(0, BODY)]).rejections] == [
            Reason.WRONG_SCHEMA
        ]
    assert registry.asked == {0: 1}


_WRITTEN = {
    "boolean": ("boolean", True),
    "int": ("int", -(2**31)),
    "long": ("long", 2**62),
    "float": ("float", 1.5),
    "double": ("double", 1e300),
    "string": ("string", "ä"),
    "bytes": ("bytes", b"\xff"),
    "enum": ({"type": "enum", "name": "E", "symbols": ["A"]}, "A"),
    "fixed": ({"type": "fixed", "name": "F", "size": 1}, b"a"),
    "array": ({"type": "array", "items": "int"}, [1]),
    "record": ({"type": "record", "name": "R", "fields": [{"name": "at", "type": "int"}]}, {"at": 1}),
}


@pytest.mark.parametrize("form", ["plain", "nullable", "beside-a-union"])
@pytest.mark.parametrize("wanted", sorted(PRIMITIVES))
def test_types_are_promoted_exactly_where_avro_promotes_them(wanted: str, form: str) -> None:
    """Flat or not, each pair of types gives the row or the rejection of the oracle."""
    newest = make_family([record([{"name": "a", "type": wanted}])])
    for declared, value in _WRITTEN.values():
        fields = [{"name": "a", "type": ["null", declared] if form == "nullable" else declared}]
        other = [{"name": "b", "type": ["null", "int"]}] if form == "beside-a-union" else []
        writer = record(fields + other)
        body = encode(writer, {"a": value, "b": None})
        rows = Decoder(newest, Known(writer)).decode([frame_confluent(0, body)])
        assert_as_expected(rows, [oracle.read(writer, newest.schema, body)])


def test_a_silent_registry_fails_the_batch() -> None:
    """The decoder raises UnavailableError, but only if a record needs the registry."""
    decoder = Decoder(FAMILY, Silent())
    assert len(decoder.decode([good()])) == 1
    with pytest.raises(UnavailableError):
        decoder.decode([good(), frame_confluent(1, BODY)])


@pytest.mark.untraced  # it has a bound
@pytest.mark.parametrize("text", WRITERS.values(), ids=WRITERS)
def test_a_dangerous_writer_schema_is_refused_at_once(text: str) -> None:
    """The refusal comes before fastavro sees the schema; its explanation is short and quotes no text of the schema."""
    registry = Registered(text)
    decoder = Decoder(load_catalog(Settings()).family("ui_events"), registry)
    began = time.thread_time()
    bodies = (b"", b"\0" * 100, b"\x02" * 5000)
    rejections = [decoder.decode([frame_confluent(0, body)]).rejections[0] for body in bodies]
    assert time.thread_time() - began < 1
    assert {rejection.reason for rejection in rejections} == {Reason.WRONG_SCHEMA}
    assert len(rejections[0].detail) < 200
    assert registry.asked == 1


@pytest.mark.untraced  # it has a bound
def test_the_bytes_of_a_foreign_record_bound_its_cost() -> None:
    """The bytes of a record bound the work, even if the types of its schema contain each other twice, repeatedly."""
    lists = [{"type": "array", "items": "int"}, {"type": "map", "values": ["null", "int"]}]
    schema = record([*chain(MAX_DEPTH - 2), *({"name": f"f{at}", "type": each} for at, each in enumerate(lists))])
    newest = record([{"name": "count", "type": "int", "default": 1}])
    began = time.thread_time()
    rows = Decoder(make_family([newest]), Known(schema)).decode([frame_confluent(0, b"\0" * 100_000)])
    assert rows.rejections[0].reason is Reason.TRUNCATED
    assert time.thread_time() - began < 1
