"""Column types for Avro types: the fields that a column can hold, and the column that a new field gets.

docs/types.md has the table for readers; a contract test compares the two.
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from pipeline.schema.fields import Field
from pipeline.schema.privacy import Keep

_TYPE = re.compile(r"(?P<name>\w+)(?:\((?P<arguments>.*)\))?")
_MAP = re.compile(r"(?:String|LowCardinality\(String\)),(.*)")
_FIXED_PATTERN = re.compile(r"\^(\[[^\]]+\]|\w)\{(?P<length>\d+)\}\$")
# Ranges of DateTime64 and Date32, 1900 to 2299, and of Date; since 1970.
_FIRST_MS, _LAST_MS = -2_208_988_800_000, 10_413_791_999_999
_DAYS = {"Date": (0, 65_535), "Date32": (-25_567, 120_529)}
_UNITS = {"timestamp-millis": ("3", 1), "timestamp-micros": ("6", 1000)}
_BITS = (8, 16, 32, 64)
_WIDTH = {"int": 32, "long": 64}
_TIMES = {"time-millis", "time-micros"}


def unfit(field: Field, column_type: str) -> str | None:
    """Describe the field that a column of this type needs; None if the field fits.

    Args:
        field: the declaration.
        column_type: as ClickHouse writes it.
    """
    match = _TYPE.fullmatch(column_type)
    name, arguments = (match["name"], (match["arguments"] or "").replace(" ", "")) if match else (column_type, "")
    if name == "Nullable":
        return unfit(replace(field, null=None), arguments)
    if (name, arguments) == ("LowCardinality", "Nullable(String)"):
        return _few_values(replace(field, null=None))
    check = _CHECKS.get(name)
    if check is None or (name == "LowCardinality" and arguments != "String"):
        return "another column type: no Avro type is known for this one"
    if field.nullable:
        return f"a field that is never null, or the column Nullable({column_type})"
    return check(field, arguments)


def column_type(field: Field) -> str:
    """Return the type of the column that a new field gets, as ClickHouse writes it.

    Whole numbers get the smallest column that holds their bounds; without bounds, that of their Avro type.
    """
    if field.nullable:
        inner = column_type(replace(field, null=None))
        return "LowCardinality(Nullable(String))" if inner == "LowCardinality(String)" else f"Nullable({inner})"
    if field.items is not None:
        inner = column_type(field.items)
        return f"Array({inner})" if field.type == "array" else f"Map(String, {inner})"
    return _COLUMNS[field.logical_type or field.type](field)


def _smallest(field: Field) -> str:
    low, high = _range(field)
    for bits in _BITS:
        if low >= 0 and high < 1 << bits:
            return f"UInt{bits}"
        if low >= -(1 << bits - 1) and high < 1 << bits - 1:
            return f"Int{bits}"
    return "Int64"


def _string_column(field: Field) -> str:
    if field.values is not None:
        return "LowCardinality(String)"
    match = _FIXED_PATTERN.fullmatch(field.pattern.pattern) if field.pattern else None
    return f"FixedString({match['length']})" if match and field.privacy == Keep() else "String"


_COLUMNS: dict[str, Callable[[Field], str]] = {
    "boolean": lambda _: "Bool",
    "float": lambda _: "Float32",
    "double": lambda _: "Float64",
    "bytes": lambda _: "String",
    "enum": lambda _: "LowCardinality(String)",
    "uuid": lambda _: "UUID",
    "date": lambda _: "Date32",
    "timestamp-millis": lambda _: "DateTime64(3, 'UTC')",
    "timestamp-micros": lambda _: "DateTime64(6, 'UTC')",
    "decimal": lambda field: f"Decimal({field.precision}, {field.scale})",
    "fixed": lambda field: f"FixedString({field.size})",
    "string": _string_column,
    **dict.fromkeys(("int", "long", "time-millis", "time-micros"), _smallest),
}
"""Type of the column for a scalar, by its logical type or else its type."""


def _range(field: Field) -> tuple[Decimal, Decimal]:
    """Least and greatest value of a number."""
    low, high = Decimal("-Infinity"), Decimal("Infinity")
    if field.type in _WIDTH:
        limit = Decimal(1 << _WIDTH[field.type] - 1)
        low, high = -limit, limit - 1
    return (
        low if field.minimum is None else max(low, Decimal(math.ceil(field.minimum))),
        high if field.maximum is None else min(high, Decimal(math.floor(field.maximum))),
    )


def _within(field: Field, low: int, high: int) -> bool:
    least, greatest = _range(field)
    return least >= low and greatest <= high


def _is(*kinds: str) -> Callable[[Field, str], str | None]:
    return lambda field, _: None if (field.logical_type or field.type) in kinds else " or ".join(kinds)


def _timestamp(field: Field, arguments: str) -> str | None:
    digits, _, zone = arguments.partition(",")
    for unit, (wanted, factor) in _UNITS.items():
        if (digits, zone) == (wanted, "'UTC'"):
            last = (_LAST_MS + 1) * factor - 1
            fits = field.logical_type == unit and _within(field, _FIRST_MS * factor, last)
            return None if fits else f"{unit} from 1900 to 2299"
    return "another column type: no Avro type is known for this one"


def _days(name: str) -> Callable[[Field, str], str | None]:
    first, last = _DAYS[name]
    expected = f"date with min and max from {first} to {last}, in days since 1970"
    return lambda field, _: None if field.logical_type == "date" and _within(field, first, last) else expected


def _integer(low: int, high: int) -> Callable[[Field, str], str | None]:
    def check(field: Field, _: str) -> str | None:
        plain = field.type in {"int", "long"} and field.logical_type in {None, *_TIMES}
        return None if plain and _within(field, low, high) else f"int or long with min and max from {low} to {high}"

    return check


def _decimal(field: Field, arguments: str) -> str | None:
    precision, scale = map(int, arguments.split(","))
    fits = field.logical_type == "decimal" and field.precision <= precision and field.scale == scale
    return None if fits else f"decimal with precision {precision} and scale {scale}"


def _fixed_string(field: Field, arguments: str) -> str | None:
    """Expect a fixed length: ClickHouse pads shorter values with zero bytes and refuses longer ones."""
    if field.type == "fixed" and field.logical_type is None:
        return None if str(field.size) == arguments else f"fixed of {arguments} bytes"
    match = _FIXED_PATTERN.fullmatch(field.pattern.pattern) if field.pattern else None
    fits = match is not None and match["length"] == arguments and field.privacy == Keep()
    return None if fits else f"a string that privacy keeps, with a pattern of the form ^[...]{{{arguments}}}$"


def _few_values(field: Field, _: str = "") -> str | None:
    """Expect a closed set or a pattern: it keeps free text out of a column that is stored as a dictionary."""
    fits = field.type in {"string", "enum"} and (field.values or field.pattern)
    return None if fits else "a string with values or a pattern, or an enum"


def _array(field: Field, arguments: str) -> str | None:
    if field.type != "array" or field.items is None:
        return "array"
    inside = unfit(field.items, arguments)
    return inside and f"array of {inside}"


def _map(field: Field, arguments: str) -> str | None:
    match = _MAP.fullmatch(arguments)
    if match is None:
        return "another column type: keys are String or LowCardinality(String)"
    if field.type != "map" or field.items is None:
        return "map"
    inside = unfit(field.items, match[1])
    return inside and f"map of {inside}"


_CHECKS: dict[str, Callable[[Field, str], str | None]] = {
    "DateTime64": _timestamp,
    **{name: _days(name) for name in _DAYS},
    "UUID": _is("uuid"),
    "String": _is("string", "bytes", "enum"),
    "LowCardinality": _few_values,
    "FixedString": _fixed_string,
    **{f"UInt{bits}": _integer(0, (1 << bits) - 1) for bits in _BITS},
    **{f"Int{bits}": _integer(-(1 << bits - 1), (1 << bits - 1) - 1) for bits in _BITS},
    "Bool": _is("boolean"),
    "Float32": _is("float"),
    "Float64": _is("double", "float"),
    "Decimal": _decimal,
    "Array": _array,
    "Map": _map,
}
"""Check of a field for a column, by the name of the column's type; it gets the type's arguments without spaces."""
