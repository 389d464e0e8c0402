"""Resolves a writer schema to the newest schema by field name, as Avro's schema resolution does.

It is stricter than Avro in two points, because a misread value would be wrong unnoticed. A logical type of the writer
must be the reader's: microseconds aren't milliseconds. And an amount or a time isn't promoted from another type: the
text "0.1" isn't a two's complement number. A type without a logical type has the meaning of the reader's, because
libraries drop logical types from the canonical form.
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
_PROMOTED_TO = {None, "uuid"}
_NO_MEANING = (None, 0, 0)
_SHOWN_BRANCHES = 4


@dataclass(frozen=True, slots=True)
class Resolution:
    """The way to read records of one writer schema."""

    writer: Any
    """The checked writer schema."""
    written: Mapping[str, Any]
    """Name to Avro type of each field, without logical types, in the order of its bytes."""
    missing: tuple[Field, ...]
    """Fields of the newest schema that take their defaults."""
    flat: bool
    """True if `written` has the types of the record's bytes; otherwise fastavro must first re-encode these fields."""
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
    named: dict[str, Any] = {}
    declared = {field["name"]: _spelt_out(field["type"], named) for field in writer["fields"]}
    refused = {}
    for field in newest.fields:
        if field.name in declared:
            refused[field.name] = _refused_branches(field, declared[field.name])
        elif field.required:
            raise UnresolvableError(f"{field.name}: not written, and without a default")
    missing = tuple(field for field in newest.fields if field.name not in declared)
    written = {name: _layout(declaration) for name, declaration in declared.items()}
    if all(_is_direct(newest.by_name.get(name), layout) for name, layout in written.items()):
        return Resolution(writer, written, missing, flat=True, refused={})
    readable = {field.name: field.physical for field in newest.fields if field.name in declared}
    return Resolution(writer, readable, missing, flat=False, refused=refused)


def layout_of_value(layout: Any) -> Any:
    """Return the type of a value that may be null; any other type as it is."""
    return next(branch for branch in layout if branch != "null") if isinstance(layout, list) else layout


def record_layout(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a record with fields of these types; a named type is defined once."""
    seen = set[str]()
    return {
        "type": "record",
        "name": name,
        "fields": [{"name": field, "type": _defined_once(layout, seen)} for field, layout in fields.items()],
    }


def _defined_once(layout: Any, seen: set[str]) -> Any:
    match layout:
        case [*branches]:
            return [_defined_once(branch, seen) for branch in branches]
        case {"name": name}:
            if name in seen:
                return name
            seen.add(name)
        case {"items": inner} | {"values": inner}:
            return {key: _defined_once(inner, seen) if value is inner else value for key, value in layout.items()}
    return layout


def _spelt_out(declared: Any, named: dict[str, Any]) -> Any:
    """Replace the names of enums and fixed types by their definitions; other named types stay as they are."""
    match declared:
        case str() if declared in named:
            return named[declared]
        case [*branches]:
            return [_spelt_out(branch, named) for branch in branches]
        case {"type": "array", "items": items}:
            return {**declared, "items": _spelt_out(items, named)}
        case {"type": "map", "values": values}:
            return {**declared, "values": _spelt_out(values, named)}
        case {"type": "record", "fields": fields}:
            return {**declared, "fields": [{**each, "type": _spelt_out(each["type"], named)} for each in fields]}
        case {"type": "enum" | "fixed", "name": name}:
            named[name] = declared
    return declared


def _layout(declared: Any) -> Any:
    """Return the type without logical types."""
    match declared:
        case [*branches]:
            return [_layout(branch) for branch in branches]
        case {"type": "array" | "map"}:
            return {key: _layout(value) if key in {"items", "values"} else value for key, value in declared.items()}
        case {"type": str() as primitive} if primitive in PRIMITIVES:
            return primitive
        case {"type": "enum" | "fixed"}:
            return {key: value for key, value in declared.items() if key in {"type", "name", "symbols", "size"}}
    return declared


def _is_direct(field: Field | None, layout: Any) -> bool:
    """True if columns are read from a field's bytes as they are; the newest schema may lack the field."""
    if isinstance(layout, list):
        others = [branch for branch in layout if branch != "null"]
        may_be_null = field is None or field.nullable
        return len(layout) == 2 and len(others) == 1 and may_be_null and _is_direct_value(field, others[0])
    return _is_direct_value(field, layout)


def _is_direct_value(field: Field | None, layout: Any) -> bool:
    items = None if field is None else field.items
    match layout:
        case {"type": "array", "items": inner} | {"type": "map", "values": inner}:
            return _is_scalar(inner) and (field is None or (items is not None and _is_direct_value(items, inner)))
    return _is_scalar(layout)


def _is_scalar(layout: Any) -> bool:
    match layout:
        case str():
            return layout in PRIMITIVES
        case {"type": "enum" | "fixed"}:
            return True
    return False


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
    if written == "null":
        return field.nullable
    if field.items is not None:
        members = list(_members(field.type, written))
        return bool(members) and all(_is_readable(field.items, member) for member in members)
    meaning = _meaning(written)
    if meaning not in {_NO_MEANING, (field.logical_type, field.precision, field.scale)}:
        return False
    match written:
        case {"type": "enum" | "fixed" as kind, "name": name}:
            return (kind, name, written.get("size", 0)) == (field.type, field.type_name, field.size)
    primitive = _primitive(written)
    if primitive is None:
        return False
    promoted = primitive in PROMOTIONS.get(field.type, ()) and field.logical_type in _PROMOTED_TO
    return primitive == field.type or (promoted and meaning == _NO_MEANING)


def _members(kind: str, written: Any) -> Iterator[Any]:
    """Yield the type of a list's items or a map's values, if the written type is one."""
    match written:
        case {"type": "array", "items": member} | {"type": "map", "values": member} if written["type"] == kind:
            yield member


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
    suffix = _suffix(field.logical_type, field.precision, field.scale)
    if field.items is not None:
        return f"{field.type} of {_wanted(field.items)}"
    return f"{field.type}{f' {field.type_name}' if field.type_name else ''}{suffix}"


def _suffix(logical_type: str | None, precision: int, scale: int) -> str:
    if logical_type is None:
        return ""
    return f" {logical_type}({precision},{scale})" if logical_type == "decimal" else f" {logical_type}"
