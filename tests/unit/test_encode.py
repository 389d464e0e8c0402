"""The encoder accepts exactly the events that the worker accepts, and explains its refusals."""

import io
import uuid
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.catalog import Family, load_catalog
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.privacy.hashing import Hasher
from pipeline.privacy.sanitise import Sanitiser
from pipeline.producer.encode import Encoder, InvalidEventError
from pipeline.schema.fields import Field
from pipeline.schema.framing import CONFLUENT_HEADER_BYTES, SINGLE_OBJECT_HEADER_BYTES, frame_single_object

CATALOG = load_catalog(Settings())
FAMILIES = {family.name: family for family in CATALOG.families}
ENCODERS = {name: Encoder(family) for name, family in FAMILIES.items()}
DECODERS = {
    name: Decoder(family, sanitise=Sanitiser(family.schema, Hasher(b"any key"))) for name, family in FAMILIES.items()
}

LLM_EVENT: dict[str, Any] = {
    "ts": 1_767_225_600_123,
    "run_id": "0b5e2f4c-7d1a-4c36-9e58-2f6b1a93c7d4",
    "source": "council",
    "model": "llama3.1:8b-instruct-q4_0",
    "operation": "generate",
    "tokens_in": 1480,
    "tokens_out": 932,
    "latency_ms": 31_205,
    "cost_usd": "0.100320",
    "status": "success",
    "error_msg": "",
}


def read_back(value: bytes, family: str = "llm_events") -> dict[str, Any]:
    """Read a framed value with fastavro and the published schema."""
    stream = io.BytesIO(value[SINGLE_OBJECT_HEADER_BYTES:])
    record = fastavro.schemaless_reader(stream, FAMILIES[family].schema.parsed, None)
    assert not stream.read()
    assert isinstance(record, dict)
    return record


def values_of(field: Field) -> st.SearchStrategy[tuple[Any, Any]]:
    """Draw values of a field, good and bad: as an event has them, and as Avro writes them."""
    if field.logical_type == "decimal":
        widest = 10**field.precision
        unscaled = st.integers(-2, widest) | st.sampled_from([widest - 1, widest, -widest])
        return unscaled.map(lambda number: (Decimal(number).scaleb(-field.scale), _twos_complement(number)))
    if field.type in {"int", "long"}:
        low, high = int(field.minimum or 0), int(field.maximum or 0)
        values: st.SearchStrategy[Any] = st.integers(low, high) | st.sampled_from([low - 1, low, high, high + 1])
    elif field.type == "float":
        values = st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0, 1.0000001192092896, 1e9])
    elif field.logical_type == "uuid":
        values = st.uuids().map(str) | st.sampled_from([str(uuid.UUID(int=0)).upper(), "", "0" * 32, "{0}"])
    else:
        values = _texts(field)
    return values.map(lambda value: (value, value))


def _texts(field: Field) -> st.SearchStrategy[str]:
    plain = st.text(max_size=8) | st.sampled_from(["", "é", "https://a.example", "0\n", '{"n": [1]}', "[" * 2000])
    if field.values is not None:
        return st.sampled_from(field.values) | plain
    if field.pattern is not None:
        return st.from_regex(field.pattern) | plain
    if field.max_length is not None:
        limit = field.max_length
        return plain | st.sampled_from(["x" * limit, "x" * (limit + 1), "é" * (limit // 2), "é" * (limit // 2 + 1)])
    return plain


def _twos_complement(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)


@pytest.mark.parametrize("name", FAMILIES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_worker_comes_to_the_same_verdict(name: str, data: st.DataObject) -> None:
    """An event is encoded exactly if the worker accepts the same values, written without checks."""
    family = FAMILIES[name]
    good = _good_event(family)
    changed = data.draw(st.sampled_from(family.schema.fields))
    brought, written = data.draw(values_of(changed))
    stream = io.BytesIO()
    plain = {"type": "record", "name": name, "fields": [{"name": f.name, "type": f.type} for f in family.schema.fields]}
    fastavro.schemaless_writer(stream, plain, {**_physical(family, good), changed.name: written})
    unchecked = frame_single_object(family.schema.fingerprint, stream.getvalue())
    accepted = len(DECODERS[name].decode([unchecked])) == 1
    encoded = _encoded(name, {**good, changed.name: brought})
    if isinstance(encoded, bytes):
        assert accepted
        assert encoded == unchecked or changed.logical_type == "uuid"
        assert len(DECODERS[name].decode([encoded])) == 1
    else:
        assert not accepted, encoded
        assert f"{name}: {changed.name}: expected " in encoded


def _encoded(name: str, event: dict[str, Any]) -> bytes | str:
    """The value, or the reason of its refusal."""
    try:
        return ENCODERS[name].encode(event).value
    except InvalidEventError as error:
        return str(error)


def _good_event(family: Family) -> dict[str, Any]:
    texts = {
        "commit_sha": "a" * 40,
        "hearts_commit": "b" * 40,
        "packs_commit": "c" * 40,
        "url": "https://a.example",
        "metadata": "{}",
    }
    return {
        field.name: str(uuid.UUID(int=1))
        if field.logical_type == "uuid"
        else texts.get(field.name, field.values[0] if field.values else "x")
        if field.type == "string"
        else 1
        for field in family.schema.fields
    }


def _physical(family: Family, event: dict[str, Any]) -> dict[str, Any]:
    scaled = {field.name: field.scale for field in family.schema.fields if field.logical_type == "decimal"}
    return {name: _twos_complement(10 ** scaled[name]) if name in scaled else value for name, value in event.items()}


@pytest.mark.parametrize(
    "ts",
    [
        pytest.param(1_767_225_600_123, id="milliseconds"),
        pytest.param("2026-01-01T00:00:00.123Z", id="text-utc"),
        pytest.param("2026-01-01T05:30:00.123+05:30", id="text-offset"),
        pytest.param("2026-01-01T00:00:00.123999Z", id="finer-digits-are-cut"),
        pytest.param(datetime(2026, 1, 1, microsecond=123_000, tzinfo=UTC), id="datetime"),
        pytest.param(
            datetime(2025, 12, 31, 19, microsecond=123_000, tzinfo=timezone(timedelta(hours=-5))), id="datetime-offset"
        ),
    ],
)
def test_a_time_may_be_written_in_several_ways(ts: Any) -> None:
    """All these forms give the same millisecond."""
    value = ENCODERS["llm_events"].encode({**LLM_EVENT, "ts": ts}).value
    assert read_back(value)["ts"] == datetime(2026, 1, 1, microsecond=123_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("money", "stored"),
    [
        pytest.param("0.1", "0.100000", id="text"),
        pytest.param("0.10000000", "0.100000", id="trailing-zeros"),
        pytest.param(3, "3.000000", id="int"),
        pytest.param(Decimal("0.000128"), "0.000128", id="decimal"),
        pytest.param(0.1, "0.100000", id="float-as-written"),
        pytest.param("999999.999999", "999999.999999", id="largest"),
    ],
)
def test_money_is_stored_exactly(money: Any, stored: str) -> None:
    """No form of a number loses a millionth."""
    cost = read_back(ENCODERS["llm_events"].encode({**LLM_EVENT, "cost_usd": money}).value)["cost_usd"]
    assert str(cost) == stored


REFUSED = [
    pytest.param({"ts": "2026-01-01T00:00:00"}, "ts: expected ISO 8601 with an offset", id="naive-text"),
    pytest.param({"ts": datetime(2026, 1, 1)}, "ts: expected .* aware datetime", id="naive-datetime"),  # noqa: DTZ001 (the test needs a naive time)
    pytest.param({"ts": 1.5}, "ts: expected .* whole milliseconds", id="ts-float"),
    pytest.param({"ts": "yesterday"}, "ts: expected ISO 8601", id="ts-no-time"),
    pytest.param({"ts": True}, "ts: expected", id="ts-boolean"),
    pytest.param({"cost_usd": 0.1 + 0.2}, "cost_usd: expected a decimal number .* 6 digits", id="float-not-exact"),
    pytest.param({"cost_usd": 100_000.123456789}, "cost_usd: expected", id="too-fine"),
    pytest.param({"cost_usd": "1000000"}, "cost_usd: expected .* to 999999.999999", id="too-wide"),
    pytest.param({"cost_usd": "-0.000001"}, "cost_usd: expected a decimal number from 0", id="negative-money"),
    pytest.param({"cost_usd": "NaN"}, "cost_usd: expected", id="money-nan"),
    pytest.param({"cost_usd": "1e999999999"}, "cost_usd: expected", id="money-huge-exponent"),
    pytest.param({"cost_usd": True}, "cost_usd: expected", id="money-boolean"),
    pytest.param({"tokens_in": True}, "tokens_in: expected a whole number from 0 to 4294967295", id="int-boolean"),
    pytest.param({"tokens_in": 3.0}, "tokens_in: expected a whole number", id="int-float"),
    pytest.param({"tokens_in": "3"}, "tokens_in: expected a whole number", id="int-text"),
    pytest.param({"run_id": "0b5e2f4c7d1a4c369e582f6b1a93c7d4"}, "run_id: expected a UUID of the form", id="no-dashes"),
    pytest.param({"run_id": 7}, "run_id: expected a UUID", id="uuid-number"),
    pytest.param({"error_msg": "\ud800"}, "error_msg: expected text without lone surrogates", id="surrogate"),
    pytest.param({"error_msg": None}, "error_msg: expected text, got null", id="null"),
    pytest.param(
        {"status": "done"},
        "status: expected one of success, failure, timeout, got text of 4 characters",
        id="closed-set",
    ),
    pytest.param({"model": "a b"}, "model: expected text that matches", id="pattern"),
    pytest.param({"colour": "red"}, "colour: no such field, expected one of ts, run_id,", id="unknown-field"),
]


@pytest.mark.parametrize(("change", "problem"), REFUSED)
def test_an_invalid_event_is_refused_with_field_and_expectation(change: dict[str, Any], problem: str) -> None:
    """The message names family, field and expected value."""
    with pytest.raises(InvalidEventError, match=f"^llm_events: {problem}"):
        ENCODERS["llm_events"].encode({**LLM_EVENT, **change})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e39, 10**400, 1.0000002, -0.1, "0.5", True])
def test_a_stored_float_is_finite_and_within_bounds(number: Any) -> None:
    """Other floats, and values that are no numbers, are refused."""
    event = {**_good_event(FAMILIES["episodes"]), "confidence_score": number}
    with pytest.raises(InvalidEventError, match="confidence_score: expected a finite number from 0 to 1, got"):
        ENCODERS["episodes"].encode(event)


def test_all_faults_of_an_event_are_reported_together() -> None:
    """Each wrong, unknown and missing field is named, in the order of the event."""
    event = {**LLM_EVENT, "tokens_in": -1, "colour": "red", "model": "a b"}
    del event["status"], event["source"]
    with pytest.raises(InvalidEventError) as refusal:
        ENCODERS["llm_events"].encode(event)
    assert [fault.partition(": ")[0] for fault in str(refusal.value).removeprefix("llm_events: ").split("; ")] == [
        "model",
        "tokens_in",
        "colour",
        "source",
        "status",
    ]


_PERSONAL = "jo.public@example.org"
_WRONG: list[Any] = [_PERSONAL, [_PERSONAL], {_PERSONAL: _PERSONAL}, _PERSONAL.encode(), 4915123456789012, 4.9151234e15]


@pytest.mark.parametrize("value", _WRONG, ids=["text", "list", "object", "bytes", "whole number", "number"])
@pytest.mark.parametrize("name", FAMILIES)
def test_no_message_holds_a_value(name: str, value: Any) -> None:
    """As docs/privacy.md promises, an error names fields and bounds, and neither values nor what stands for a name."""
    fields = {field.name: value for field in FAMILIES[name].schema.fields}
    events: list[Any] = [fields, {**_good_event(FAMILIES[name]), _PERSONAL: 1}, [value], value]
    for event in events:
        problem = _encoded(name, event)
        assert isinstance(problem, str)
        assert "example" not in problem
        assert "49151234" not in problem.replace(".", "")


@pytest.mark.parametrize(
    ("metadata", "written"),
    [
        ({}, "{}"),
        ({"overlay": "größer", "n": [1, 2.5, None, True]}, '{"overlay":"größer","n":[1,2.5,null,true]}'),
        ({"n": 2**70}, '{"n":1180591620717411303424}'),
        ({"overlay": "a\ud83d"}, '{"overlay":"a\\ud83d"}'),
        (MappingProxyType({"overlay": "chat"}), '{"overlay":"chat"}'),
    ],
    ids=["empty", "every kind", "a large number", "half a surrogate pair", "a mapping"],
)
def test_metadata_may_be_a_mapping(metadata: Any, written: str) -> None:
    """It is written as JSON, and the worker accepts it."""
    event = {**_good_event(FAMILIES["ui_events"]), "metadata": metadata}
    value = ENCODERS["ui_events"].encode(event).value
    assert read_back(value, "ui_events")["metadata"] == written
    assert len(DECODERS["ui_events"].decode([value])) == 1


_CYCLE: dict[str, Any] = {}
_CYCLE["again"] = _CYCLE


@pytest.mark.parametrize(
    "metadata",
    [{"at": datetime.now(UTC)}, {"n": float("nan")}, {(1, 2): 3}, {"n": 10**5_000}, _CYCLE, ["a"], 1, None, "[1]"],
    ids=["a time", "NaN", "a tuple as key", "5,000 digits", "a cycle", "a list", "a number", "null", "text of a list"],
)
def test_metadata_that_is_no_json_object_is_refused(metadata: Any) -> None:
    """The message says which form is expected."""
    with pytest.raises(InvalidEventError, match=r"^ui_events: metadata: expected "):
        ENCODERS["ui_events"].encode({**_good_event(FAMILIES["ui_events"]), "metadata": metadata})


def test_a_missing_field_is_named_unless_it_has_a_default() -> None:
    """`error_msg` is optional and becomes empty; `status` is required."""
    event = {name: value for name, value in LLM_EVENT.items() if name != "error_msg"}
    assert read_back(ENCODERS["llm_events"].encode(event).value)["error_msg"] == ""
    del event["status"]
    with pytest.raises(InvalidEventError, match="llm_events: status: required, but missing"):
        ENCODERS["llm_events"].encode(event)


def test_a_value_that_is_no_object_is_refused() -> None:
    """A JSON line may hold any kind of value."""
    with pytest.raises(InvalidEventError, match=r"llm_events: expected an object of fields, got a list"):
        ENCODERS["llm_events"].encode([1])  # type: ignore[arg-type]


def test_all_spellings_of_a_uuid_give_one_key() -> None:
    """Upper case, lower case and UUID objects give the same key and the same value."""
    text = LLM_EVENT["run_id"]
    messages = {
        ENCODERS["llm_events"].encode({**LLM_EVENT, "run_id": run_id})
        for run_id in (text, text.upper(), uuid.UUID(text))
    }
    assert [message.key for message in messages] == [text.encode()]


def test_confluent_framing_carries_the_registered_id() -> None:
    """Only the header differs from single-object framing."""
    framed = Encoder(FAMILIES["llm_events"], schema_id=258).encode(LLM_EVENT).value
    assert framed[:CONFLUENT_HEADER_BYTES] == b"\0\0\0\x01\x02"
    single_object = ENCODERS["llm_events"].encode(LLM_EVENT).value
    assert framed[CONFLUENT_HEADER_BYTES:] == single_object[SINGLE_OBJECT_HEADER_BYTES:]
