"""A dead letter as `chimera dlq show` prints it: masked, and harmless for a terminal."""

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from support.avro_cases import make_family, record
from support.dead_letters import TOPIC, dead_record, error_headers
from support.events import events

from pipeline.catalog import Family, load_catalog
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.dlq.content import Reader
from pipeline.dlq.fields import readable
from pipeline.dlq.headers import Headers
from pipeline.dlq.letters import FOREIGN, DlqRecord, read_letter
from pipeline.dlq.show import described, lines
from pipeline.errors import Reason
from pipeline.producer.encode import Encoder
from pipeline.schema.framing import SINGLE_OBJECT_HEADER_BYTES


@pytest.mark.untraced  # other tests reach the same lines, and the tracer doubles its time
def test_random_damage_never_makes_show_fail(family: Family, valid: bytes) -> None:
    """Random bytes replace parts of a valid value; it is shown masked and unmasked."""
    chance = random.Random(1)
    reader = Reader(family)
    for _ in range(2_000):
        value = bytearray(valid)
        start = chance.randrange(SINGLE_OBJECT_HEADER_BYTES, len(value))
        value[start : start + chance.randrange(12)] = chance.randbytes(chance.randrange(12))
        dead = dead_record(error_headers(), value=bytes(value))
        for unmask in (False, True):
            said = described(family, read_letter(TOPIC, dead), dead, reader.read(dead.value), unmask=unmask)
            assert json.loads(json.dumps(said, allow_nan=False)) == said
            assert "\n".join(lines(said)).replace("\n", "").isprintable()


_SECRETS = ("jo.public@example.org", "\x1b[31mred", "trace-4711")


def _secret(family: Family) -> DlqRecord:
    event = {**events(family.name, 1)[0], "user_agent": _SECRETS[1]}
    value = Encoder(family).encode(event).value
    headers = [("trace", _SECRETS[2].encode()), *error_headers(reason="too_long", detail="user_agent: over 512 bytes")]
    return DlqRecord(0, 0, 0, _SECRETS[0].encode(), value, headers)


def test_values_are_masked(family: Family) -> None:
    """Types, lengths and the invalid field are shown, but no value of a key, header or field."""
    dead = _secret(family)
    content = Reader(family).read(dead.value)
    said = described(family, read_letter(TOPIC, dead), dead, content, unmask=False)
    text = "\n".join(lines(said)) + json.dumps(said)
    assert 'user_agent         "text, 8 bytes"   <- user_agent: over 512 bytes' in text
    assert said["key"] == "21 bytes"
    assert said["fields"]["ts"] == "number"
    assert said["headers"] == [["text, 5 bytes", "10 bytes"]]
    for secret in (*_SECRETS, *(str(value) for value in content.fields.values() if len(str(value)) > 6)):
        assert secret not in text


_FORGED: list[tuple[str, bytes | None]] = [
    ("chimera.error.reason", b"jo@example.org"),
    ("chimera.error.detail", b"bob@example.org"),
    ("chimera.error.schema", b"+4915123456789"),
    ("chimera.error.version", b"203.0.113.9"),
    ("chimera.error.cut.value", b"eve@example.org"),
    ("chimera.error.jo@example.org", b"x"),
]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([*_FORGED, *error_headers()], id="before the worker's"),
        pytest.param(_FORGED, id="of no record of the topic"),
        pytest.param([*error_headers(), ("jo@example.org", b"x")], id="something behind the worker's"),
        pytest.param([*error_headers(topic="jo@example.org"), *_FORGED[1:]], id="of another topic"),
    ],
)
def test_facts_that_no_worker_wrote_are_not_shown(family: Family, headers: Headers) -> None:
    """Anybody can forge such headers with personal data in them; they have no effect."""
    dead = dead_record(headers)
    letter = read_letter(TOPIC, dead)
    said = described(family, letter, dead, Reader(family).read(dead.value), unmask=False)
    text = "\n".join(lines(said)) + json.dumps(said)
    for secret in ("example", "49151", "203.0.113", "too large"):
        assert secret not in text
    assert said["left_out"] == {}
    assert letter.whole or letter.foreign
    assert {letter.reason, said["reason"]} <= {"empty", FOREIGN}


def test_the_timestamp_of_the_record_is_shown(family: Family) -> None:
    """A number that is no time, and a missing one, do no harm."""
    for facts, shown in (
        ({"timestamp": 1_700_000_000_000}, "2023-11-14T22:13:20.000Z"),
        ({"timestamp": 9 * 10**17}, "1970-01-01T00:00:00.000Z"),
        ({}, None),
    ):
        dead = dead_record(error_headers(**facts))
        said = described(family, read_letter(TOPIC, dead), dead, Reader(family).read(b""), unmask=False)
        assert said["timestamp"] == shown
        assert f"  record     of {shown or 'an unknown time'}" in lines(said)


def test_unmasked_values_are_readable_and_escaped(family: Family) -> None:
    """Times and ids are shown as text, and control characters are escaped."""
    dead = _secret(family)
    said = described(family, read_letter(TOPIC, dead), dead, Reader(family).read(dead.value), unmask=True)
    assert said["key"] == _SECRETS[0]
    assert said["fields"]["user_agent"] == _SECRETS[1]
    assert datetime.fromisoformat(said["fields"]["ts"]).tzinfo == UTC
    assert "\x1b" not in "\n".join(lines(said))


def test_money_is_a_decimal_number() -> None:
    """An amount of money is shown by its logical type, not as bytes."""
    family = load_catalog(Settings()).family("bench_runs")
    event = events(family.name, 1)[0]
    money = next(field.name for field in family.schema.fields if field.logical_type == "decimal")
    dead = dead_record(error_headers(), value=Encoder(family).encode({**event, money: "1.25"}).value)
    content = Reader(family).read(dead.value)
    said = described(family, read_letter(TOPIC, dead), dead, content, unmask=True)
    assert said["fields"][money] == "1.250000"


def test_items_are_shown_as_single_values_are() -> None:
    """Times, dates and decimals of a list or a map are text, without an exponent; so is a time of day."""
    wide = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 10}
    when = {"type": "long", "logicalType": "timestamp-micros"}
    fields: list[dict[str, Any]] = [
        {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "days", "type": {"type": "array", "items": {"type": "int", "logicalType": "date"}}},
        {"name": "wides", "type": {"type": "array", "items": wide}},
        {"name": "at", "type": {"type": "map", "values": when}, "key_pattern": "^[a-z]$", "min": 0, "max": 10**15},
    ]
    declared = make_family([record(fields)]).schema.by_name
    values = {"clock": 47_655_167, "days": [20_758], "wides": [b"\xff"], "at": {"a": 1}}
    assert {name: readable(value, declared[name]) for name, value in values.items()} == {
        "clock": "13:14:15.167",
        "days": ["2026-11-01"],
        "wides": ["-0.0000000001"],
        "at": {"a": "1970-01-01T00:00:00.000001Z"},
    }


_PERSONAL = '{"session_id": "jo@example.org", "jo.public@example.org": 1, "latency_ms": 12, "\\u001b[31m": ["x"]}'


@pytest.mark.parametrize(
    ("value", "form"),
    [
        pytest.param(_PERSONAL.encode(), "JSON", id="plain"),
        pytest.param(f"\ufeff \n{_PERSONAL}".encode(), "JSON", id="with a mark and blanks"),
        pytest.param(_PERSONAL.encode("utf-16"), "JSON in UTF-16", id="utf-16 with a mark"),
        pytest.param(_PERSONAL.encode("utf-16-le"), "JSON in UTF-16", id="utf-16"),
        pytest.param(_PERSONAL.encode("utf-32"), "JSON in UTF-32", id="utf-32"),
        pytest.param(_PERSONAL.encode().replace(b'["x"]', b'["\xff"]'), "JSON", id="no UTF-8"),
    ],
)
def test_json_in_a_topic_is_shown_masked(family: Family, value: bytes, form: str) -> None:
    """The reason says that the value looks like JSON; its members are shown like fields, without their text."""
    [rejection] = Decoder(family).decode([value]).rejections
    assert rejection.reason is Reason.UNFRAMED
    assert rejection.detail.endswith(f"it looks like {form}")
    dead = dead_record(error_headers(reason="unframed", detail=rejection.detail), value=value)
    content = Reader(family).read(dead.value)
    masked, unmasked = (
        described(family, read_letter(TOPIC, dead), dead, content, unmask=unmask) for unmask in (False, True)
    )
    assert masked["fields"] == {
        "session_id": "text, 14 bytes",
        "member 2, 21 bytes": "number",
        "latency_ms": "number",
        "member 4, 5 bytes": "list of 1",
    }
    text = "\n".join(lines(masked))
    assert f"here reading ends: {form}, not framed Avro" in text
    assert "example.org" not in text
    assert unmasked["fields"]["session_id"] == "jo@example.org"
    assert "\n".join(lines(unmasked)).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "value",
    [b'{"ts": "2026-', b'[{"ts": 1}]', b'"{\\"ts\\": 1}"', b'" [{}]"', b'{"a": ' * 5_000 + b"1" + b"}" * 5_000],
    ids=["cut", "array", "in a string", "array in a string", "deep"],
)
def test_json_that_is_no_small_object_is_shown_as_one_text(family: Family, value: bytes) -> None:
    """Any JSON is recognised, and shown as a text of its length."""
    [rejection] = Decoder(family).decode([value]).rejections
    assert rejection.detail.endswith("it looks like JSON")
    _check_one_masked_text(family, value)


@pytest.mark.parametrize("value", [b"{'ts': 1}", "déjà vu\t1".encode(), b'"one"', b"a,b\r\n1,2\r\n", b"true"])
def test_text_is_recognised_and_shown_masked(family: Family, value: bytes) -> None:
    """As of a Python dict, a CSV line, or JSON that is no object and no array."""
    [rejection] = Decoder(family).decode([value]).rejections
    assert rejection.detail.endswith("it looks like text")
    _check_one_masked_text(family, value)


def _check_one_masked_text(family: Family, value: bytes) -> None:
    dead = dead_record(error_headers(), value=value)
    content = Reader(family).read(dead.value)
    said = described(family, read_letter(TOPIC, dead), dead, content, unmask=False)
    assert list(said["fields"]) == ["text"]
    assert said["fields"]["text"].startswith("text, ")
    assert described(family, read_letter(TOPIC, dead), dead, content, unmask=True)["fields"]["text"]
