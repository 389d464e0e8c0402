"""Records of other writer schemas: older, registered, nested, and schemas that nothing may be read with."""

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


def test_all_writers_of_a_batch_end_up_in_its_order() -> None:
    """The newest version, an older one, a registered one and foreign ones, mixed, with rejected records in between."""
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
def test_every_flipped_bit_and_every_cut_of_a_foreign_record_gets_the_verdict_of_the_oracle(schema: Any) -> None:
    """Fastavro's laxities aside: those are rejected."""
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
    """Whatever their bytes; and the registry is asked once."""
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
def test_each_avro_type_is_read_as_each_other_just_where_avro_promotes_it(wanted: str, form: str) -> None:
    """Flat or not, the oracle's verdict and value; and never anything but a row or a rejection."""
    newest = make_family([record([{"name": "a", "type": wanted}])])
    for declared, value in _WRITTEN.values():
        fields = [{"name": "a", "type": ["null", declared] if form == "nullable" else declared}]
        other = [{"name": "b", "type": ["null", "int"]}] if form == "beside-a-union" else []
        writer = record(fields + other)
        body = encode(writer, {"a": value, "b": None})
        rows = Decoder(newest, Known(writer)).decode([frame_confluent(0, body)])
        assert_as_expected(rows, [oracle.read(writer, newest.schema, body)])


def test_a_silent_registry_decides_nothing() -> None:
    """The batch is worth another try; without a record that needs the registry, it isn't asked."""
    decoder = Decoder(FAMILY, Silent())
    assert len(decoder.decode([good()])) == 1
    with pytest.raises(UnavailableError):
        decoder.decode([good(), frame_confluent(1, BODY)])


@pytest.mark.parametrize("text", WRITERS.values(), ids=WRITERS)
def test_a_schema_by_which_nothing_should_be_read_is_refused_at_once(text: str) -> None:
    """Before fastavro sees it, and whatever the bytes are; what is said of it is short, and no text of the schema's."""
    registry = Registered(text)
    decoder = Decoder(load_catalog(Settings()).family("ui_events"), registry)
    began = time.process_time()
    bodies = (b"", b"\0" * 100, b"\x02" * 5000)
    rejections = [decoder.decode([frame_confluent(0, body)]).rejections[0] for body in bodies]
    assert time.process_time() - began < 1
    assert {rejection.reason for rejection in rejections} == {Reason.WRONG_SCHEMA}
    assert len(rejections[0].detail) < 200
    assert registry.asked == 1


def test_a_foreign_record_costs_its_reader_no_more_than_its_bytes() -> None:
    """Not even of a schema whose types hold each other twice, and again."""
    lists = [{"type": "array", "items": "int"}, {"type": "map", "values": ["null", "int"]}]
    schema = record([*chain(MAX_DEPTH - 2), *({"name": f"f{at}", "type": each} for at, each in enumerate(lists))])
    newest = record([{"name": "count", "type": "int", "default": 1}])
    began = time.process_time()
    rows = Decoder(make_family([newest]), Known(schema)).decode([frame_confluent(0, b"\0" * 100_000)])
    assert rows.rejections[0].reason is Reason.TRUNCATED
    assert time.process_time() - began < 1
