"""Readable part of a dead letter's value: field by field, up to the first error."""

from typing import Any

import pytest

from pipeline.catalog import Family
from pipeline.decode.reference import Reference
from pipeline.dlq.content import Reader
from pipeline.schema.framing import SINGLE_OBJECT_HEADER_BYTES, frame_confluent, frame_single_object


def test_a_valid_value_is_read_completely(family: Family, valid: bytes) -> None:
    """All fields are there, in the order of the schema, and nothing says that reading ended early."""
    content = Reader(family).read(valid)
    assert list(content.fields) == [field.name for field in family.schema.fields]
    assert content.ends == ""


def test_a_damaged_value_is_read_up_to_the_damage(family: Family, valid: bytes) -> None:
    """Cut off at every byte: as many fields as are whole, each as it was."""
    whole = Reader(family).read(valid).fields
    seen = set()
    for size in range(SINGLE_OBJECT_HEADER_BYTES, len(valid)):
        content = Reader(family).read(valid[:size])
        assert list(content.fields.items()) == list(whole.items())[: len(content.fields)]
        assert content.ends
        seen.add(len(content.fields))
    assert seen == set(range(len(whole)))


@pytest.mark.parametrize(
    ("value", "ends"),
    [
        pytest.param(None, "null", id="null"),
        pytest.param(b"", "no bytes", id="empty"),
        pytest.param(b"\1hello", "no frame that names a schema", id="unframed"),
        pytest.param(b"{}", "JSON, not framed Avro", id="json"),
        pytest.param(frame_confluent(7, b""), "id:7: no registry is set to ask", id="no registry"),
        pytest.param(frame_single_object(bytes(8), b"x"), "no version of the family's schema", id="fingerprint"),
    ],
)
def test_an_unreadable_value_has_a_reason(family: Family, value: bytes | None, ends: str) -> None:
    """The reason is returned, not raised."""
    content = Reader(family).read(value)
    assert not content.fields
    assert ends in content.ends


class _Registry:
    def __init__(self, schema: Any) -> None:
        self._schema = schema

    def schema(self, _: int) -> Any:
        return self._schema


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"type": "array", "items": "null"}, id="array of null"),
        pytest.param({"type": "record", "name": "R", "fields": [{"name": "f", "type": ["null", "R"]}]}, id="recursive"),
        pytest.param("string", id="no record"),
        pytest.param(None, id="nothing"),
    ],
)
def test_a_hostile_schema_reads_nothing(family: Family, schema: Any) -> None:
    """A schema from the registry can't make reading fail or hang."""
    content = Reader(family, _Registry(schema)).read(frame_confluent(1, b"\xff" * 100))
    assert not content.fields
    assert content.ends


def test_any_schema_of_the_registry_is_read(family: Family) -> None:
    """Nested types are read too, and text that isn't UTF-8."""
    schema = {
        "type": "record",
        "name": "Other",
        "fields": [
            {"name": "who", "type": {"type": "record", "name": "Who", "fields": [{"name": "id", "type": "string"}]}},
            {"name": "tags", "type": {"type": "map", "values": ["null", "Who"]}},
        ],
    }
    content = Reader(family, _Registry(schema)).read(frame_confluent(1, b"\x02\xff" + b"\x02\x02k\x02\x02x\x00" + b"!"))
    assert content.fields == {"who": {"id": "\\xff"}, "tags": {"k": {"id": "x"}}}
    assert content.ends == "bytes after the last field"


def test_read_partly_agrees_with_read(family: Family, valid: bytes) -> None:
    """Both read the same fields of a valid record."""
    reference = Reference(family.schema.raw, {field.name: field.type for field in family.schema.fields})
    body = valid[SINGLE_OBJECT_HEADER_BYTES:]
    assert reference.read_partly(body) == (reference.read(body), None)
