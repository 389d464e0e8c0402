"""The Avro types of fields: scalars, a scalar or null, and lists and maps of scalars.

Nested records aren't among them: a table's row is flat. docs/types.md has the column type for each.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import ConfigError, unknown_key_message

PRIMITIVES = frozenset({"boolean", "int", "long", "float", "double", "string", "bytes"})
LOGICAL_TYPES = {
    "uuid": ("string",),
    "decimal": ("bytes", "fixed"),
    "timestamp-millis": ("long",),
    "timestamp-micros": ("long",),
    "date": ("int",),
    "time-millis": ("int",),
    "time-micros": ("long",),
}
"""Logical type to the types that carry it."""
MAX_DECIMAL_PRECISION = 38  # decimal digits of a 128-bit unscaled value
NARROW_DECIMAL_PRECISION = 18
"""Decimal digits of a 64-bit unscaled value."""
MAX_FIXED_BYTES = 64
MAX_SYMBOLS = 1000

_SCALARS = (*sorted(PRIMITIVES), "enum", "fixed")
_KEYS = {
    "enum": ("type", "name", "namespace", "aliases", "doc", "symbols", "default"),
    "fixed": ("type", "name", "namespace", "aliases", "doc", "size", "logicalType"),
    "array": ("type", "items"),
    "map": ("type", "values"),
}
_DECIMAL_KEYS = ("precision", "scale")
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NULL = ("null", {"type": "null"})


@dataclass(frozen=True, slots=True)
class AvroType:
    """Type of a field, or of a list's items or a map's values."""

    kind: str
    """A primitive type, enum, fixed, array or map."""
    logical_type: str | None = None
    precision: int = 0
    scale: int = 0
    name: str = ""
    """Name of an enum or a fixed, without its namespace."""
    symbols: tuple[str, ...] = ()
    default_symbol: str | None = None
    size: int = 0
    """Bytes of a fixed."""
    items: "AvroType | None" = None
    """Type of a list's items or a map's values."""
    null: int | None = None
    """Place of null in the union; None without a union."""


class TypeReader:
    """Reads the types of one record, which may name a type that an earlier field defines."""

    def __init__(self) -> None:
        self._named: dict[str, AvroType] = {}

    def read(self, where: str, raw: Any) -> AvroType:
        """Read the type of a field.

        Args:
            where: file and field, for messages.
            raw: the declaration, as parsed JSON.

        Raises:
            ConfigError: no such type, or one that has no column.
        """
        if isinstance(raw, list):
            return self._union(where, raw)
        declared = raw if isinstance(raw, dict) else {"type": raw}
        kind = declared.get("type")
        if kind in ("array", "map"):
            check_keys(f"{where}.type", declared, _KEYS[kind])
            member = "items" if kind == "array" else "values"
            return AvroType(kind, items=self._scalar(f"{where}.{member}", declared.get(member)))
        return self._scalar(where, raw)

    def _union(self, where: str, branches: list[Any]) -> AvroType:
        others = [branch for branch in branches if branch not in _NULL]
        if len(branches) != 2 or len(others) != 1 or isinstance(others[0], list):
            raise ConfigError(f'{where}.type: expected a union of "null" and one scalar, got {len(branches)} branches')
        return replace(self._scalar(where, others[0]), null=0 if branches[0] in _NULL else 1)

    def _scalar(self, where: str, raw: Any) -> AvroType:
        declared = raw if isinstance(raw, dict) else {"type": raw}
        kind = declared.get("type")
        if isinstance(kind, str) and (known := self._named.get(kind.rpartition(".")[2])) and kind not in PRIMITIVES:
            return known
        if kind == "record":
            raise ConfigError(f"{where}.type: expected no record in a record: declare its fields here, with a prefix")
        if not isinstance(kind, str) or kind not in _SCALARS:
            raise ConfigError(f"{where}.type: expected one of {', '.join(_SCALARS)}, got {kind!r}")
        logical_type = _logical_type(where, declared, kind)
        keys = _KEYS.get(kind, ("type", "logicalType"))
        check_keys(f"{where}.type", declared, (*keys, *(_DECIMAL_KEYS if logical_type == "decimal" else ())))
        found = AvroType(kind, logical_type)
        if kind == "fixed":
            found = replace(found, size=whole(f"{where}.size", declared.get("size"), 1, MAX_FIXED_BYTES))
        if kind == "enum":
            found = _enum(where, declared, found)
        if logical_type == "decimal":
            precision = whole(f"{where}.precision", declared.get("precision"), 1, MAX_DECIMAL_PRECISION)
            scale = whole(f"{where}.scale", declared.get("scale", 0), 0, precision)
            found = replace(found, precision=precision, scale=scale)
        return self._remembered(where, declared, found) if kind in ("enum", "fixed") else found

    def _remembered(self, where: str, declared: Mapping[str, Any], found: AvroType) -> AvroType:
        name = str(declared.get("name", "")).rpartition(".")[2]
        if not _SYMBOL.fullmatch(name) or name in self._named:
            raise ConfigError(f"{where}.type.name: expected a name of its own of letters, digits and _, got {name!r}")
        self._named[name] = replace(found, name=name)
        return self._named[name]


def _logical_type(where: str, declared: Mapping[str, Any], kind: str) -> str | None:
    logical_type = declared.get("logicalType")
    if "logicalType" in declared and (
        not isinstance(logical_type, str) or kind not in LOGICAL_TYPES.get(logical_type, ())
    ):
        expected = ", ".join(f"{name} on {' or '.join(bases)}" for name, bases in LOGICAL_TYPES.items())
        raise ConfigError(f"{where}.logicalType: expected {expected}; got {logical_type!r} on {kind}")
    return logical_type


def _enum(where: str, declared: Mapping[str, Any], found: AvroType) -> AvroType:
    symbols, default = declared.get("symbols"), declared.get("default")
    fits = isinstance(symbols, list) and 0 < len(symbols) <= MAX_SYMBOLS and len(set(map(str, symbols))) == len(symbols)
    if not fits or not all(isinstance(symbol, str) and _SYMBOL.fullmatch(symbol) for symbol in symbols or ()):
        raise ConfigError(f"{where}.symbols: expected a list of different names, got {symbols!r}")
    if default is not None and default not in (symbols or ()):
        raise ConfigError(f"{where}.type.default: expected one of the symbols, got {default!r}")
    return replace(found, symbols=tuple(symbols or ()), default_symbol=default)


def check_keys(where: str, raw: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse an unknown attribute: Avro ignores it, so that a misspelt bound would have no effect.

    Args:
        where: place of the attributes, for messages.
        raw: the attributes.
        known: the known names.

    Raises:
        ConfigError: the first unknown attribute, and the known ones.
    """
    for key in raw:
        if key not in known:
            raise ConfigError(f"{where}.{key}: {unknown_key_message(known, key)}")


def whole(where: str, value: Any, least: int, most: int = 2**31 - 1) -> int:
    """Return a whole number within bounds.

    Raises:
        ConfigError: it is none; names place and bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{where}: expected a whole number, {least} to {most}, got {value!r}")
    return value
