"""Particular records: one for each reason to reject, each framing, foreign schemas, and all damage to real events."""

import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hostile.writers import WRITERS, chain
from support import oracle
from support.avro_cases import encode, make_family, record

from pipeline.catalog import load_catalog
from pipeline.columns import DictionaryColumn
from pipeline.config import Settings, ValidationSettings
from pipeline.decode.decoder import Decoder
from pipeline.errors import Reason, UnavailableError
from pipeline.producer.encode import Encoder
from pipeline.schema.fields import PRIMITIVES
from pipeline.schema.framing import SINGLE_OBJECT_HEADER_BYTES, frame_confluent, frame_single_object
from pipeline.schema.writer_schema import MAX_DEPTH, parse_schema

CATALOG = load_catalog(Settings())
EXAMPLES = Path(__file__).parent.parent.parent / "examples"

ANY = record(
    [
        {"name": "count", "type": "int", "min": 0, "max": 10},
        {"name": "ratio", "type": "float"},
        {"name": "open", "type": "boolean"},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "kind", "type": "string", "values": ["open", "shut"]},
        {"name": "slug", "type": "string", "pattern": "^[a-z]+(-[a-z]+)*$"},
        {"name": "sha", "type": "string", "pattern": "^[0-9a-f]{8}$"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, "min": "0"},
        {"name": "note", "type": "string", "max_length": 6, "default": "none"},
    ]
)
GOOD: dict[str, Any] = {
    "count": 7,
    "ratio": 0.5,
    "open": True,
    "id": "6D9A30C2-15fe-4b7d-a2c8-0e74b95f1d36",
    "kind": "shut",
    "slug": "one-two",
    "sha": "0123abcd",
    "price": b"\x04\xd2",
    "note": "größ",
}
FAMILY = make_family([ANY])
FINGERPRINT = FAMILY.schema.fingerprint
BODY = encode(ANY, GOOD)
ROW = GOOD | {
    "id": bytes.fromhex("6d9a30c215fe4b7da2c80e74b95f1d36"),
    "kind": b"shut",
    "slug": b"one-two",
    "sha": b"0123abcd",
    "price": 1234,
    "note": "größ".encode(),
}


class Known:
    """A registry that holds these schemas, under the numbers of their places."""

    def __init__(self, *schemas: Any) -> None:
        self.schemas = schemas
        self.asked: Counter[int] = Counter()

    def schema(self, schema_id: int) -> Any:
        self.asked[schema_id] += 1
        if schema_id >= len(self.schemas):
            raise LookupError(schema_id)
        return self.schemas[schema_id]


class Registered:
    """A registry that has this text under every number."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked = 0

    def schema(self, _schema_id: int) -> Any:
        self.asked += 1
        return parse_schema(self.text)


class Silent:
    """A registry that doesn't answer."""

    def schema(self, _schema_id: int) -> Any:
        raise UnavailableError("the registry at http://localhost:8081 does not answer")


def good(**changes: Any) -> bytes:
    return frame_single_object(FINGERPRINT, encode(ANY, GOOD | changes))


def patched(start: int, stop: int, filling: bytes) -> bytes:
    """The good record with other bytes in place of some of its body."""
    return frame_single_object(FINGERPRINT, BODY[:start] + filling + BODY[stop:])


# The body begins: count (1 byte), ratio (4), open (1), length of id (1), id (36).
REJECTED = {
    "null": (None, Reason.TOMBSTONE),
    "empty": (b"", Reason.EMPTY),
    "oversize": (good() + bytes(1 << 20), Reason.OVERSIZE),
    "oversize-and-unframed": (bytes((1 << 20) + 1), Reason.OVERSIZE),
    "bare-avro": (BODY, Reason.UNFRAMED),
    "marker-only": (b"\xc3\x01" + FINGERPRINT[:7], Reason.UNFRAMED),
    "magic-only": (b"\x00\x00\x00\x00", Reason.UNFRAMED),
    "json": (b'{"count": 7}', Reason.UNFRAMED),
    "unknown-fingerprint": (frame_single_object(b"nobody's", BODY), Reason.UNKNOWN_SCHEMA),
    "id-without-registry": (frame_confluent(1, BODY), Reason.UNKNOWN_SCHEMA),
    "header-only": (frame_single_object(FINGERPRINT, b""), Reason.TRUNCATED),
    "cut": (good()[:-1], Reason.TRUNCATED),
    "length-beyond-the-end": (patched(6, 7, b"\x80\x40"), Reason.TRUNCATED),
    "length-beyond-all-memory": (patched(6, 7, b"\xfe" + b"\xff" * 8 + b"\x01"), Reason.TRUNCATED),
    "varint-without-end": (frame_single_object(FINGERPRINT, b"\x80" * 9), Reason.TRUNCATED),
    "varint-of-eleven-bytes": (patched(0, 1, b"\x80" * 10 + b"\x01"), Reason.MALFORMED),
    "varint-over-64-bits": (patched(0, 1, b"\xff" * 9 + b"\x02"), Reason.MALFORMED),
    "varint-in-too-many-bytes": (patched(0, 1, b"\x8e\x00"), Reason.MALFORMED),
    "int-over-32-bits": (patched(0, 1, b"\x80\x80\x80\x80\x10"), Reason.MALFORMED),
    "negative-length": (patched(6, 7, b"\x01"), Reason.MALFORMED),
    "boolean-of-2": (patched(5, 6, b"\x02"), Reason.MALFORMED),
    "decimal-without-bytes": (good(price=b""), Reason.MALFORMED),
    "trailing-byte": (good() + b"\0", Reason.TRAILING_BYTES),
    "two-records-in-one": (good() + BODY, Reason.TRAILING_BYTES),
    "latin-1": (frame_single_object(FINGERPRINT, BODY.replace("größ".encode(), b"gr\xf6\xdf??")), Reason.INVALID_UTF8),
    "surrogate": (
        frame_single_object(FINGERPRINT, BODY.replace("größ".encode(), b"\xed\xa0\x80abc")),
        Reason.INVALID_UTF8,
    ),
    "nul": (good(note="a\0b"), Reason.NUL_BYTE),
    "nul-in-a-pattern": (good(slug="one\0"), Reason.NUL_BYTE),
    "nul-in-one-class": (good(sha="0123abc\0"), Reason.NUL_BYTE),
    "nul-in-a-set": (good(kind="open\0"), Reason.NUL_BYTE),
    "nul-in-a-uuid": (good(id="6d9a30c2-15fe-4b7d-a2c8-0e74b95f1d3\0"), Reason.NUL_BYTE),
    "uuid-in-braces": (good(id="{6d9a30c2-15fe-4b7d-a2c8-0e74b95f1d36}"), Reason.INVALID_UUID),
    "uuid-without-dashes": (good(id="6d9a30c215fe4b7da2c80e74b95f1d36"), Reason.INVALID_UUID),
    "uuid-with-a-misplaced-dash": (good(id="6d9a30c-215fe-4b7d-a2c8-0e74b95f1d36"), Reason.INVALID_UUID),
    "uuid-with-another-letter": (good(id="6d9a30c2-15fe-4b7d-a2c8-0e74b95f1d3g"), Reason.INVALID_UUID),
    "nan": (good(ratio=float("nan")), Reason.NOT_FINITE),
    "infinity": (good(ratio=float("-inf")), Reason.NOT_FINITE),
    "above-the-maximum": (good(count=11), Reason.OUT_OF_BOUNDS),
    "below-the-minimum": (good(count=-1), Reason.OUT_OF_BOUNDS),
    "negative-price": (good(price=b"\xff"), Reason.OUT_OF_BOUNDS),
    "too-many-digits": (good(price=(10_000).to_bytes(2, "big")), Reason.OUT_OF_BOUNDS),
    "digits-by-the-hundred": (good(price=b"\x01" * 300), Reason.OUT_OF_BOUNDS),
    "over-the-length-in-bytes": (good(note="größe"), Reason.TOO_LONG),
    "not-in-the-set": (good(kind="Open"), Reason.NOT_IN_SET),
    "prefix-of-one-in-the-set": (good(kind="ope"), Reason.NOT_IN_SET),
    "pattern": (good(slug="one_two"), Reason.PATTERN_MISMATCH),
    "pattern-and-a-newline": (good(slug="one\n"), Reason.PATTERN_MISMATCH),
    "upper-case-commit": (good(sha="0123ABCD"), Reason.PATTERN_MISMATCH),
    "short-commit": (good(sha="0123abc"), Reason.PATTERN_MISMATCH),
    "long-commit": (good(sha="0123abcde"), Reason.PATTERN_MISMATCH),
}


@pytest.mark.parametrize(("value", "reason"), REJECTED.values(), ids=REJECTED)
def test_a_bad_record_is_rejected_with_its_reason_and_spoils_no_neighbour(value: bytes | None, reason: Reason) -> None:
    """Good records before and after it become the rows that they always do."""
    rows = Decoder(FAMILY).decode([good(), value, good(count=3)])
    assert [(rejection.position, rejection.reason) for rejection in rows.rejections] == [(1, reason)]
    assert rows.positions.tolist() == [0, 2]
    assert oracle.rows_of(rows) == [ROW, ROW | {"count": 3}]


def test_every_reason_that_decoding_gives_has_an_example() -> None:
    """All but the one that ClickHouse gives, and those about schemas and JSON, which have tests of their own."""
    shown = {reason for _, reason in REJECTED.values()}
    assert {Reason.WRONG_SCHEMA, Reason.INVALID_JSON, Reason.REFUSED_BY_CLICKHOUSE} == set(Reason) - shown


def test_all_bad_records_at_once_get_the_reasons_that_they_get_alone() -> None:
    """And nothing of them is left in the columns: a dictionary holds values of valid rows only."""
    rows = Decoder(FAMILY).decode([value for value, _ in REJECTED.values()] + [good()])
    assert [rejection.reason for rejection in rows.rejections] == [reason for _, reason in REJECTED.values()]
    assert oracle.rows_of(rows) == [ROW]
    slugs = rows.columns["slug"]
    assert isinstance(slugs, DictionaryColumn)
    assert slugs.values == [b"one-two"]


_DAY_MS = 86_400_000
_NOW = 1_767_225_600_000
_TIMED = make_family([record([{"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}, "min": 0}])])


@pytest.mark.parametrize(
    ("ahead_ms", "written", "limits", "accepted"),
    [
        pytest.param(_DAY_MS, _NOW, {}, True, id="a-day-ahead"),
        pytest.param(_DAY_MS + 1, _NOW, {}, False, id="more"),
        pytest.param(1, _NOW, {"max_ahead_seconds": 0}, False, id="ahead-of-none"),
        pytest.param(-_NOW, _NOW, {}, True, id="as-old-as-can-be"),
        pytest.param(-5000, _NOW, {"max_behind_seconds": 5}, True, id="just-young-enough"),
        pytest.param(-5001, _NOW, {"max_behind_seconds": 5}, False, id="too-old"),
        pytest.param(_NOW, -1, {}, False, id="a-record-without-a-timestamp"),
        pytest.param(_NOW, -1, {"max_ahead_seconds": 1e10}, True, id="a-record-without-and-no-limit"),
        pytest.param(-(2**63) + 5, 2**63 - 1, {}, True, id="a-record-of-the-last-day"),
        pytest.param(2**63, -(2**63), {}, False, id="a-record-of-the-first-day"),
    ],
)
def test_an_event_may_be_so_far_from_its_record(
    ahead_ms: int, written: int, limits: dict[str, float], accepted: bool
) -> None:
    """In whole milliseconds, whatever 64-bit numbers the two are; its neighbours have timestamps of their own."""
    decoder = Decoder(_TIMED, validation=ValidationSettings(**limits))
    values = [
        frame_single_object(_TIMED.schema.fingerprint, encode(_TIMED.schema.raw, {"ts": ts}))
        for ts in (_NOW, max(written + ahead_ms, 0), _NOW)
    ]
    rows = decoder.decode(values, [_NOW, written, _NOW])
    assert [(rejection.position, rejection.reason) for rejection in rows.rejections] == (
        [] if accepted else [(1, Reason.OUT_OF_BOUNDS)]
    )
    assert len(decoder.decode([None, *values], [written, _NOW, written, _NOW])) == len(rows)


@pytest.mark.parametrize("values", [[], [None, b"?"]], ids=["no-records", "no-valid-records"])
def test_columns_have_their_form_even_without_rows(values: list[bytes | None]) -> None:
    """All fields of the newest schema, in its order, each of the type that it has with rows."""
    decoder = Decoder(FAMILY)
    empty, one = decoder.decode(values).columns, decoder.decode([good()]).columns
    assert list(empty) == list(one) == list(FAMILY.schema.by_name)
    assert [getattr(column, "dtype", type(column)) for column in empty.values()] == [
        getattr(column, "dtype", type(column)) for column in one.values()
    ]


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
    damaged = [*_cuts(body), *_flips(body)]
    rows = Decoder(FAMILY, Known(schema)).decode([frame_confluent(0, one) for one in damaged])
    _assert_as_expected(rows, [oracle.read(schema, FAMILY.schema, one) for one in damaged])


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
        _assert_as_expected(rows, [oracle.read(writer, newest.schema, body)])


@pytest.mark.parametrize(
    ("pattern", "form"),
    [
        pytest.param("^[0-9a-f]{8}$", "V8", id="hexadecimal"),
        pytest.param("^[a-]{1}$", "V1", id="letter-and-dash"),
        pytest.param("^[^a]{2}$", None, id="negated"),
        pytest.param("^[aĀ]{2}$", None, id="beyond-ascii"),
        pytest.param("^[a-z]{65}$", None, id="long"),
        pytest.param("^[a-z]{1,3}$", None, id="of-several-lengths"),
    ],
)
def test_strings_of_one_class_and_length_make_an_array(pattern: str, form: str | None) -> None:
    """Others stay coded; and either way those are accepted that the regular expression matches, if they have no NUL."""
    family = make_family([record([{"name": "a", "type": "string", "pattern": pattern}])])
    texts = [chr(number) * length for number in range(300) for length in (1, 2, 8, 65)] + ["a-", "Āa", "0123abcd"]
    values = [frame_single_object(family.schema.fingerprint, encode(family.schema.raw, {"a": text})) for text in texts]
    rows = Decoder(family).decode(values)
    assert getattr(rows.columns["a"], "dtype", None) == (np.dtype(form) if form else None)
    assert [texts[at] for at in rows.positions] == [
        text for text in texts if re.fullmatch(pattern, text) and "\0" not in text
    ]


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
    decoder = Decoder(CATALOG.family("ui_events"), registry)
    began = time.perf_counter()
    bodies = (b"", b"\0" * 100, b"\x02" * 5000)
    rejections = [decoder.decode([frame_confluent(0, body)]).rejections[0] for body in bodies]
    assert time.perf_counter() - began < 1
    assert {rejection.reason for rejection in rejections} == {Reason.WRONG_SCHEMA}
    assert len(rejections[0].detail) < 200
    assert registry.asked == 1


def test_a_foreign_record_costs_its_reader_no_more_than_its_bytes() -> None:
    """Not even of a schema whose types hold each other twice, and again."""
    lists = [{"type": "array", "items": "int"}, {"type": "map", "values": ["null", "int"]}]
    schema = record([*chain(MAX_DEPTH - 2), *({"name": f"f{at}", "type": each} for at, each in enumerate(lists))])
    newest = record([{"name": "count", "type": "int", "default": 1}])
    began = time.perf_counter()
    rows = Decoder(make_family([newest]), Known(schema)).decode([frame_confluent(0, b"\0" * 100_000)])
    assert rows.rejections[0].reason is Reason.TRUNCATED
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("family", CATALOG.families, ids=lambda family: family.name)
def test_real_events_decode_to_their_values_and_damaged_ones_as_the_oracle_says(family: Any) -> None:
    """Each example of a family; each of its records cut at every byte, and with every single bit flipped."""
    lines = (EXAMPLES / f"{family.name}.jsonl").read_bytes().splitlines()
    encoder = Encoder(family)
    whole = [encoder.encode(orjson.loads(line)).value[SINGLE_OBJECT_HEADER_BYTES:] for line in lines]
    bodies = [*whole, *_cuts(whole[0]), *_flips(whole[0])]
    rows = Decoder(family).decode([frame_single_object(family.schema.fingerprint, body) for body in bodies])
    expected = [oracle.read(family.schema.raw, family.schema, body) for body in bodies]
    assert all(isinstance(row, dict) for row in expected[: len(whole)])
    _assert_as_expected(rows, expected)


def _cuts(body: bytes) -> list[bytes]:
    return [body[:stop] for stop in range(len(body))]


def _flips(body: bytes) -> list[bytes]:
    return [body[:at] + bytes([octet ^ 1 << bit]) + body[at + 1 :] for at, octet in enumerate(body) for bit in range(8)]


def _assert_as_expected(rows: Any, expected: Sequence[Any]) -> None:
    assert oracle.rows_of(rows) == [row for row in expected if isinstance(row, dict)]
    reasons = {at: verdict for at, verdict in enumerate(expected) if isinstance(verdict, Reason)}
    assert {rejection.position: rejection.reason for rejection in rows.rejections} == reasons
