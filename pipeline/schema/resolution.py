"""Resolves a writer schema to the newest schema by field name, as Avro's schema resolution does.

It is stricter than Avro in one point: a logical type of the writer must be the reader's, because microseconds that are
read as milliseconds would be wrong unnoticed.
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
"""Reader's type to the other types that it can be read from."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """The way to read records of one writer schema."""

    writer: Any
    """The checked writer schema."""
    written: Mapping[str, str]
    """Name to primitive type of each field, in the order of its bytes."""
    missing: tuple[Field, ...]
    """Fields of the newest schema that take their defaults."""
    flat: bool
    """True if `written` describes the record's own bytes; otherwise fastavro must first re-encode these fields."""


def resolve(writer: Any, newest: Schema) -> Resolution:
    """Resolve a writer schema to the newest schema.

    Args:
        writer: the writer schema as parsed JSON, not trusted.
        newest: the schema of the rows.

    Raises:
        UnresolvableError: records of this writer can't become rows of the newest schema.
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
    """Yield logical type, precision and scale of a field's type, or of each branch of its union, if declared."""
    for branch in declared if isinstance(declared, list) else [declared]:
        if isinstance(branch, Mapping) and "logicalType" in branch:
            yield branch["logicalType"], branch.get("precision", 0), branch.get("scale", 0)


def _primitive(declared: Any) -> str | None:
    """The declared primitive type; None for any other type."""
    avro_type = declared.get("type") if isinstance(declared, Mapping) else declared
    return avro_type if isinstance(avro_type, str) and avro_type in PRIMITIVES else None


def _check_readable(field: Field, declared: Any, primitive: str | None) -> None:
    if primitive and primitive != field.type and primitive not in PROMOTIONS.get(field.type, ()):
        raise UnresolvableError(f"{field.name}: {primitive} can't be read as {field.type}")
    for logical_type in _logical_types(declared):
        if logical_type != (field.logical_type, field.precision, field.scale):
            raise UnresolvableError(f"{field.name}: not written as {field.logical_type or field.type}")
