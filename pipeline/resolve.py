"""How records of a writer's schema become rows of the newest one: by field name, as Avro's schema resolution says.

Stricter than Avro in one point: a logical type that the writer declares must be the reader's, for microseconds read as
milliseconds are wrong without being noticed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.schemas import PRIMITIVES, Field, Schema

PROMOTIONS = {
    "long": {"int"},
    "float": {"int", "long"},
    "double": {"int", "long", "float"},
    "string": {"bytes"},
    "bytes": {"string"},
}
"""What a field of the reader's type may have been written as, other than as itself."""


class UnresolvableError(Exception):
    """Records of this writer's schema can't become rows of the newest one; the message says which field is to blame."""


@dataclass(frozen=True, slots=True)
class WrittenField:
    """A field as the writer's schema has it, in the order of its bytes."""

    name: str
    type: str
    """Avro's primitive type."""
    field: Field | None
    """The reader's field; None when the reader has dropped it."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """How to read one writer's records."""

    written: tuple[WrittenField, ...] | None
    """None when the writer's schema isn't flat: it takes fastavro to read."""
    missing: tuple[Field, ...]
    """Fields of the reader that come from their defaults."""


def resolve(writer: Any, reader: Schema) -> Resolution:
    """How records of the writer's schema, as parsed JSON, become rows of the reader's.

    Raises:
        UnresolvableError: they can't.
    """
    if not isinstance(writer, Mapping) or writer.get("type") != "record":
        raise UnresolvableError("expected a record")
    if _short_name(writer) != _short_name(reader.raw):
        raise UnresolvableError(f"expected a record named {_short_name(reader.raw)}")
    types = {field["name"]: field["type"] for field in writer["fields"]}
    missing = tuple(field for field in reader.fields if field.name not in types)
    for field in missing:
        if field.required:
            raise UnresolvableError(f"{field.name}: not written, and without a default")
    for field in reader.fields:
        for logical_type in _logical_types(types.get(field.name)):
            if logical_type != (field.logical_type, field.precision, field.scale):
                raise UnresolvableError(f"{field.name}: expected {field.logical_type or field.type}")
    written = [_written(name, declared, reader.by_name.get(name)) for name, declared in types.items()]
    flat = tuple(field for field in written if field is not None)
    return Resolution(flat if len(flat) == len(written) else None, missing)


def _short_name(schema: Mapping[str, Any]) -> str:
    return str(schema.get("name")).rpartition(".")[2]


def _logical_types(declared: Any) -> Iterator[tuple[str, int, int]]:
    """Logical type, precision and scale of a field's type, or of each branch of its union, where declared."""
    for branch in declared if isinstance(declared, list) else [declared]:
        if isinstance(branch, Mapping) and "logicalType" in branch:
            yield branch["logicalType"], branch.get("precision", 0), branch.get("scale", 0)


def _written(name: str, declared: Any, field: Field | None) -> WrittenField | None:
    """The field as written, when its type is primitive."""
    avro_type = declared.get("type") if isinstance(declared, Mapping) else declared
    if not isinstance(avro_type, str) or avro_type not in PRIMITIVES:
        return None
    if field and avro_type != field.type and avro_type not in PROMOTIONS.get(field.type, ()):
        raise UnresolvableError(f"{name}: {avro_type} can't be read as {field.type}")
    return WrittenField(name, avro_type, field)


def default_of(field: Field) -> Any:
    """A field's default as a value of its Avro type: JSON has no bytes, Avro spells them there as code points."""
    return field.default.encode("latin-1") if field.type == "bytes" else field.default
