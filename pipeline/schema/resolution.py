"""Resolves a writer schema to the newest schema by field name, as Avro's schema resolution does.

It is stricter than Avro in two points, because a misread value would be wrong unnoticed. A logical type of the writer
must be the reader's: microseconds aren't milliseconds. And an amount or a time isn't promoted from another type: the
text "0.1" isn't a two's complement number. A type without a logical type has the meaning of the reader's, because
libraries drop logical types from the canonical form.
"""

from collections.abc import Mapping
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
_PROMOTED_TO = {None, "uuid"}
_NO_MEANING = (None, 0, 0)
_SHOWN_BRANCHES = 4


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
    refused: Mapping[str, Mapping[int, str]]
    """Name of each union field to the branches that can't be read, by index, with the explanation."""


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
    refused = {}
    for field in newest.fields:
        if field.name in declared:
            refused[field.name] = _refused_branches(field, declared[field.name])
        elif field.required:
            raise UnresolvableError(f"{field.name}: not written, and without a default")
    missing = tuple(field for field in newest.fields if field.name not in declared)
    primitive = {name: avro_type for name, avro_type in written.items() if avro_type is not None}
    if len(primitive) == len(written):
        return Resolution(writer, primitive, missing, flat=True, refused={})
    readable = {field.name: field.type for field in newest.fields if field.name in declared}
    return Resolution(writer, readable, missing, flat=False, refused=refused)


def _check_record(schema: Any) -> None:
    if not isinstance(schema, Mapping) or schema["type"] != "record":
        raise UnresolvableError("expected a record with fields")
    if len({field["name"] for field in schema["fields"]}) < len(schema["fields"]):
        raise UnresolvableError("expected one field of a name")


def _short_name(schema: Mapping[str, Any]) -> str:
    return str(schema["name"]).rpartition(".")[2]


def _primitive(declared: Any) -> str | None:
    """The declared primitive type; None for any other type."""
    avro_type = declared.get("type") if isinstance(declared, Mapping) else declared
    return avro_type if isinstance(avro_type, str) and avro_type in PRIMITIVES else None


def _refused_branches(field: Field, declared: Any) -> Mapping[int, str]:
    """Return the branches of a union that can't be read as a field, by index, with the explanation.

    Raises:
        UnresolvableError: no written value can be read as the field.
    """
    branches = declared if isinstance(declared, list) else [declared]
    refused = {
        at: f"{field.name}: {_described(branch)} can't be read as {_wanted(field)}"
        for at, branch in enumerate(branches)
        if not _is_readable(field, branch)
    }
    if len(refused) == len(branches):
        texts = [_described(branch) for branch in branches]
        written = (
            texts[0] if len(texts) == 1 else "a union" if len(texts) > _SHOWN_BRANCHES else f"[{', '.join(texts)}]"
        )
        raise UnresolvableError(f"{field.name}: {written} can't be read as {_wanted(field)}")
    return refused


def _is_readable(field: Field, written: Any) -> bool:
    """True if a written type has the meaning of the field.

    Under a logical type, a promotion changes what the bytes mean: the text of an amount isn't a two's complement
    number, and a 32-bit time counts seconds or days. Only a UUID is text in both types.
    """
    primitive = _primitive(written)
    if primitive is None:
        return False
    meaning = _meaning(written)
    if meaning != _NO_MEANING:
        return primitive == field.type and meaning == (field.logical_type, field.precision, field.scale)
    promoted = primitive in PROMOTIONS.get(field.type, ()) and field.logical_type in _PROMOTED_TO
    return primitive == field.type or promoted


def _meaning(declared: Any) -> tuple[str | None, int, int]:
    """Logical type, precision and scale of a type."""
    if not isinstance(declared, Mapping):
        return _NO_MEANING
    return declared.get("logicalType"), declared.get("precision", 0), declared.get("scale", 0)


def _described(written: Any) -> str:
    """Describe a written type for messages: `bytes decimal(10,2)`."""
    kind = written["type"] if isinstance(written, Mapping) else written
    kind = kind if kind in PRIMITIVES | {"null", "array", "map", "record", "enum", "fixed"} else "a named type"
    return f"{kind}{_suffix(*_meaning(written))}"


def _wanted(field: Field) -> str:
    return f"{field.type}{_suffix(field.logical_type, field.precision, field.scale)}"


def _suffix(logical_type: str | None, precision: int, scale: int) -> str:
    if logical_type is None:
        return ""
    return f" {logical_type}({precision},{scale})" if logical_type == "decimal" else f" {logical_type}"
