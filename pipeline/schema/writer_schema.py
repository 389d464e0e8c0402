"""Checks a writer schema from a registry before anything reads records with it.

Anyone with access to the registry can register any schema. An accepted schema is small, shallow and not recursive, and
each of its types takes at least a byte, so that the work for a record is bounded by its bytes. The result is built anew
from the parts that define the layout of bytes; it has no defaults, aliases or other attributes that fastavro would use.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from pipeline.schema.fields import PRIMITIVES

MAX_SCHEMA_BYTES = 256 * 1024
MAX_TYPES = 1000
MAX_DEPTH = 32
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")  # explanations of a rejection quote field names
_MOST_BYTES = 2**31 - 1
_LOGICAL_TYPE = re.compile(r"[A-Za-z0-9-]{1,40}")
_SIZES = ("precision", "scale")  # of a decimal
_INVALID = -1  # precision or scale that isn't a number; equals no declared one


class UnresolvableError(Exception):
    """Records of this writer schema can't become rows of the newest schema; the message names the field at fault."""


def parse_schema(text: str) -> Any:
    """Parse the JSON of a schema.

    Raises:
        UnresolvableError: no JSON, or more than MAX_SCHEMA_BYTES.
    """
    if len(text.encode(errors="replace")) > MAX_SCHEMA_BYTES:
        raise UnresolvableError(f"a schema of more than {MAX_SCHEMA_BYTES} bytes")
    try:
        return orjson.loads(text)  # orjson limits the nesting itself
    except orjson.JSONDecodeError:
        raise UnresolvableError("a schema that isn't JSON") from None


def check_writer_schema(schema: Any) -> Any:
    """Return the schema reduced to the layout of bytes and logical types, with names without their namespace.

    Args:
        schema: parsed JSON, not trusted.

    Raises:
        UnresolvableError: not an Avro schema, or beyond the limits of this module.
    """
    return _Check().type(schema, "schema", 0)


class _Check:
    """One pass over a schema; each method returns the reduced form of its part."""

    def __init__(self) -> None:
        self.types = 0
        self.deepest = 0  # depth reached within the named type that is open
        self.heights: dict[str, int | None] = {}  # named type to the depth below it; None while it is open

    def type(self, schema: Any, where: str, depth: int) -> Any:
        self.types += 1
        if self.types > MAX_TYPES:
            raise UnresolvableError(f"a schema of more than {MAX_TYPES} types")
        self.reach(depth)
        match schema:
            case str():
                return self.named(schema, where, depth)
            case [_, *_]:
                return [self.branch(branch, where, depth + 1) for branch in schema]
            case {"type": "array", "items": items}:
                return {"type": "array", "items": self.type(items, where, depth + 1)}
            case {"type": "map", "values": values}:
                return {"type": "map", "values": self.type(values, where, depth + 1)}
            case {"type": "record" | "enum" | "fixed"}:
                return self.definition(schema, where, depth)
            case {"type": str() as kind}:
                return _with_meaning(self.named(kind, where, depth), schema)
        raise UnresolvableError(f"{where}: not an Avro type")

    def reach(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise UnresolvableError(f"types nested deeper than {MAX_DEPTH}")
        self.deepest = max(self.deepest, depth)

    def named(self, name: str, where: str, depth: int) -> str:
        """Check a primitive type or the name of an earlier type; null is refused because it takes no byte."""
        short = name.rpartition(".")[2]
        if name not in PRIMITIVES:
            if short not in self.heights:
                raise UnresolvableError(f"{where}: not an Avro type, or one that takes no byte")
            height = self.heights[short]
            if height is None:
                raise UnresolvableError(f"{where}: a type that contains itself")
            self.reach(depth + height)
        return short

    def branch(self, schema: Any, where: str, depth: int) -> Any:
        """Check a branch of a union; it may be null, because the union's index takes a byte."""
        if isinstance(schema, list):
            raise UnresolvableError(f"{where}: a union in a union")
        return "null" if schema in ("null", {"type": "null"}) else self.type(schema, where, depth)

    def definition(self, schema: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
        """Check the definition of a named type."""
        short = str(schema.get("name")).rpartition(".")[2]
        if not _is_name(short):
            raise UnresolvableError(f"{where}: expected a name of at most 128 letters, digits and _")
        if short in self.heights or short in PRIMITIVES:
            raise UnresolvableError(f"{where}: a name that is taken")
        around, self.deepest = self.deepest, depth
        self.heights[short] = None
        content = self.content(schema, where, depth)
        self.heights[short] = self.deepest - depth
        self.deepest = max(around, self.deepest)
        return {"type": schema["type"], "name": short, **content}

    def content(self, schema: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
        match schema:
            case {"type": "record", "fields": [_, *_] as fields}:
                return {"fields": [self.field(field, where, depth + 1) for field in fields]}
            case {"type": "enum", "symbols": [_, *_] as symbols} if all(map(_is_name, symbols)):
                if len(set(symbols)) == len(symbols):
                    return {"symbols": symbols}
            case {"type": "fixed", "size": int() as size} if size is not True and 1 <= size <= _MOST_BYTES:
                return {"size": size, **_meaning(schema)}
        raise UnresolvableError(f"{where}: expected the fields of a record, symbols of an enum or size of a fixed")

    def field(self, field: Any, where: str, depth: int) -> dict[str, Any]:
        if not isinstance(field, Mapping) or not _is_name(field.get("name")):
            raise UnresolvableError(f"{where}: expected fields with a name of at most 128 letters, digits and _")
        name = field["name"]
        written = self.type(field.get("type"), name, depth)
        # A logical type beside the type, where Avro ignores it, still tells what the writer means by the value.
        branches = [_with_meaning(branch, field) for branch in (written if isinstance(written, list) else [written])]
        return {"name": name, "type": branches if isinstance(written, list) else branches[0]}


def _with_meaning(written: Any, declared: Mapping[str, Any]) -> Any:
    """Add the logical type of a declaration to a primitive type that has none."""
    if not isinstance(written, str) or written not in PRIMITIVES:
        return written
    meaning = _meaning(declared)
    if not meaning and written == "bytes" and any(size in declared for size in _SIZES):
        meaning = _meaning({**declared, "logicalType": "decimal"})  # some libraries drop the name and keep the sizes
    return {"type": written, **meaning} if meaning else written


def _meaning(declared: Mapping[str, Any]) -> dict[str, Any]:
    """The declared logical type, with precision and scale of a decimal; empty without a logical type."""
    logical_type = declared.get("logicalType")
    if not isinstance(logical_type, str):
        return {}
    if not _LOGICAL_TYPE.fullmatch(logical_type):
        logical_type = "an invalid logical type"  # explanations of a rejection quote it
    if logical_type != "decimal":
        return {"logicalType": logical_type}
    sizes = {key: declared.get(key, 0) for key in _SIZES}
    return {"logicalType": logical_type} | {key: size if type(size) is int else _INVALID for key, size in sizes.items()}


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None
