"""How records of a writer's schema become rows of the newest one: by field name, as Avro's schema resolution says.

Stricter than Avro in one point: a logical type that the writer declares must be the reader's, for microseconds read as
milliseconds are wrong without being noticed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.schema.fields import PRIMITIVES, Field
from pipeline.schema.versions import Schema
from pipeline.schema.writer_schema import UnresolvableError, check_writer_schema

PROMOTIONS = {
    "long": {"int"},
    "float": {"int", "long"},
    "double": {"int", "long", "float"},
    "string": {"bytes"},
    "bytes": {"string"},
}
"""What a field of the reader's type may have been written as, other than as itself."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """How to read one writer's records."""

    writer: Any
    """Its schema, checked."""
    written: Mapping[str, str]
    """Name and primitive type of each field, in the order of its bytes."""
    missing: tuple[Field, ...]
    """Fields of the newest schema that come from their defaults."""
    flat: bool
    """Whether the bytes are as they were written; else fastavro has to read them first, and lay them out like this."""


def resolve(writer: Any, newest: Schema) -> Resolution:
    """How records of the writer's schema, as parsed JSON from wherever, become rows of the newest one.

    Raises:
        UnresolvableError: they can't.
    """
    writer = check_writer_schema(writer)
    _check_record(writer)
    if _short_name(writer) != _short_name(newest.raw):
        raise UnresolvableError(f"expected a record named {_short_name(newest.raw)}")
    declared = {field["name"]: field["type"] for field in writer["fields"]}
    written = {name: _primitive(declaration) for name, declaration in declared.items()}
    for field in newest.fields:
        if field.name in declared:
            _check_readable(field, declared[field.name], written[field.name])
        elif field.required:
            raise UnresolvableError(f"{field.name}: not written, and without a default")
    missing = tuple(field for field in newest.fields if field.name not in declared)
    primitive = {name: avro_type for name, avro_type in written.items() if avro_type is not None}
    if len(primitive) == len(written):
        return Resolution(writer, primitive, missing, flat=True)
    readable = {field.name: field.type for field in newest.fields if field.name in declared}
    return Resolution(writer, readable, missing, flat=False)


def _check_record(schema: Any) -> None:
    if not isinstance(schema, Mapping) or schema["type"] != "record":
        raise UnresolvableError("expected a record with fields")
    if len({field["name"] for field in schema["fields"]}) < len(schema["fields"]):
        raise UnresolvableError("expected one field of a name")


def _short_name(schema: Mapping[str, Any]) -> str:
    return str(schema["name"]).rpartition(".")[2]


def _logical_types(declared: Any) -> Iterator[tuple[str, int, int]]:
    """Logical type, precision and scale of a field's type, or of each branch of its union, where declared."""
    for branch in declared if isinstance(declared, list) else [declared]:
        if isinstance(branch, Mapping) and "logicalType" in branch:
            yield branch["logicalType"], branch.get("precision", 0), branch.get("scale", 0)


def _primitive(declared: Any) -> str | None:
    """The primitive type that is declared, or None when it is another type."""
    avro_type = declared.get("type") if isinstance(declared, Mapping) else declared
    return avro_type if isinstance(avro_type, str) and avro_type in PRIMITIVES else None


def _check_readable(field: Field, declared: Any, primitive: str | None) -> None:
    if primitive and primitive != field.type and primitive not in PROMOTIONS.get(field.type, ()):
        raise UnresolvableError(f"{field.name}: {primitive} can't be read as {field.type}")
    for logical_type in _logical_types(declared):
        if logical_type != (field.logical_type, field.precision, field.scale):
            raise UnresolvableError(f"{field.name}: not written as {field.logical_type or field.type}")
