"""Values of every Avro type: encoded as a producer does, decoded, inserted, and read back with the plain driver."""

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from clickhouse_driver import Client
from hypothesis import HealthCheck, given
from hypothesis import settings as properties
from hypothesis import strategies as st
from support.avro_cases import make_family, record

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.column_types import column_type, unfit
from pipeline.clickhouse.contract import check_table
from pipeline.clickhouse.coordinates import Source
from pipeline.clickhouse.ddl import create_table
from pipeline.clickhouse.live_columns import read_columns
from pipeline.clickhouse.sink import Sink
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.privacy.hashing import Hasher
from pipeline.privacy.sanitise import Sanitiser
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SOURCE = Source(uuid.UUID(int=7), 0)
_ENUM = {"type": "enum", "name": "Colour", "symbols": ["red", "green", "blue"]}
_WIDE = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 10}
_KEYS = "^[a-z]{1,8}$"


def _scalars() -> dict[str, tuple[Any, dict[str, Any], st.SearchStrategy[Any]]]:
    """Name to Avro type, attributes, and values as the driver reads them."""
    text = st.text(st.characters(codec="ascii", categories=["Ll"]), max_size=9)
    micros = st.integers(0, 4 * 10**15).map(lambda micros: _EPOCH + timedelta(microseconds=micros))
    wide = st.integers(1 - 10**38, 10**38 - 1).map(
        lambda unscaled: Decimal((unscaled < 0, tuple(map(int, str(abs(unscaled)))), -10))
    )
    return {
        "flag": ("boolean", {}, st.booleans()),
        "small": ("int", {"min": -100, "max": 100}, st.integers(-100, 100)),
        "big": ("long", {}, st.integers(-(2**63), 2**63 - 1)),
        "unsigned": ("long", {"min": 0}, st.integers(0, 2**63 - 1)),
        "ratio": ("double", {}, st.floats(allow_nan=False, allow_infinity=False)),
        "colour": (_ENUM, {}, st.sampled_from(_ENUM["symbols"])),
        "digest": (
            {"type": "fixed", "name": "Digest", "size": 5},
            {"privacy": "keep"},
            st.text("abc", min_size=5, max_size=5),
        ),
        "blob": ("bytes", {"privacy": "keep"}, text),
        "wide": (_WIDE, {}, wide),
        "day": (
            {"type": "int", "logicalType": "date"},
            {"min": 0, "max": 65535},
            st.dates(date(1970, 1, 1), date(2149, 1, 1)),
        ),
        "at": ({"type": "long", "logicalType": "timestamp-micros"}, {"min": 0, "max": 4 * 10**15}, micros),
        "clock": ({"type": "int", "logicalType": "time-millis"}, {}, st.integers(0, 86_399_999)),
        "note": ("string", {"privacy": "text"}, text),
        "kind": ("string", {"one_of": ["a", "b"]}, st.sampled_from(["a", "b"])),
        "other": ({"type": "string", "logicalType": "uuid"}, {}, st.uuids()),
    }


def _declared() -> tuple[dict[str, Any], dict[str, st.SearchStrategy[Any]]]:
    """Return a schema with each scalar alone, with null, in a list and in a map; and the values of its fields."""
    fields, values = [], {}
    for name, (avro_type, attributes, scalar) in _scalars().items():
        again = avro_type["name"] if isinstance(avro_type, dict) and "name" in avro_type else avro_type
        for form, declared, drawn in (
            ("", avro_type, scalar),
            ("_null", ["null", again], st.none() | scalar),
            ("_list", {"type": "array", "items": again}, st.lists(scalar, max_size=3)),
            (
                "_map",
                {"type": "map", "values": again},
                st.dictionaries(st.from_regex(_KEYS, fullmatch=True), scalar, max_size=2),
            ),
        ):
            pattern = {"key_pattern": _KEYS} if form == "_map" else {}
            fields.append({"name": name + form, "type": declared, **attributes, **pattern})
            values[name + form] = drawn
    head: list[dict[str, Any]] = [
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}, "min": 0, "max": 4294967295999},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
    ]
    return record([*head, *fields]), values


_SCHEMA, _VALUES = _declared()
_EVENTS = st.lists(st.fixed_dictionaries(_VALUES), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def family() -> Family:
    return make_family([_SCHEMA])


@pytest.fixture
def table(settings: Settings, family: Family) -> Iterator[Client]:
    """Plain client of a database with the table that a new family gets."""
    with connect(settings.clickhouse, database="") as client:
        client.execute(f"CREATE DATABASE {settings.clickhouse.database}")
    with connect(settings.clickhouse) as client:
        client.execute(create_table(family.schema, family.table, family.key))
        yield client


def test_every_type_is_read_back_unchanged(settings: Settings, table: Client, family: Family) -> None:
    """Scalars, nulls, lists and maps have the values that the producer gave, and the table fits the schema."""
    live = read_columns(table, settings.clickhouse.database)[family.table]
    check_table(family, {name: column.type for name, column in live.items() if not column.kind})
    encoder, decoder = Encoder(family), Decoder(family, sanitise=Sanitiser(family.schema, Hasher(b"key")))
    sink, inserts = Sink(settings.clickhouse), iter(range(10**6))
    query = f"SELECT {', '.join(f'`{name}`' for name in _VALUES)} FROM {family.table} WHERE id = %(id)s ORDER BY ts"

    @_FEW_EXAMPLES
    @given(_EVENTS)
    def round_trip(events: list[dict[str, Any]]) -> None:
        key = uuid.UUID(int=next(inserts))
        rows = decoder.decode([encoder.encode(event).value for event in _sent(events, key)])
        assert rows.rejections == ()
        sink.insert(family.table, {**rows.columns, **_SOURCE.columns(rows.positions)}, f"token {key}")
        found = table.execute(query, {"id": str(key)})
        assert [dict(zip(_VALUES, row, strict=True)) for row in found] == events

    round_trip()
    sink.close()


def _sent(events: list[dict[str, Any]], key: uuid.UUID) -> list[dict[str, Any]]:
    """Return events as the encoder takes them."""
    opaque = ("blob", "digest")
    return [
        {name: _octets(value) if name.startswith(opaque) else value for name, value in event.items()}
        | {"ts": 1_000 + at, "id": key}
        for at, event in enumerate(events)
    ]


_FEW_EXAMPLES = properties(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def _octets(value: Any) -> Any:
    match value:
        case str():
            return value.encode()
        case list():
            return [_octets(item) for item in value]
        case dict():
            return {key: _octets(member) for key, member in value.items()}
    return value


def test_the_column_of_a_new_field_fits_it(family: Family) -> None:
    """The type that a new field's column gets holds all its values."""
    assert {field.name: unfit(field, column_type(field)) for field in family.schema.fields} == {
        field.name: None for field in family.schema.fields
    }
