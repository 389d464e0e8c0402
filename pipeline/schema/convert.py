"""Converts the field values of an event to the values that Avro writes, and checks them against the schema.

| declared | accepted |
|---|---|
| timestamp, date, time of day | as `pipeline.schema.convert_times` says |
| money | text, int, Decimal, or a float that is exact in decimal; never rounded |
| UUID | UUID, or text of the form 8-4-4-4-12 in either case |
| int, long | int |
| float, double | finite int or float; bounds apply to the stored value |
| string, boolean, enum | str, bool, str |
| bytes, fixed | bytes, or Base64 text |
| array, map | list or tuple; mapping of texts to values |
| a field that may be null | None, or the above |
| metadata | str with a JSON object, or a mapping |
"""

import json
import math
import re
import uuid
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from ctypes import c_float
from dataclasses import replace
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

from pipeline.schema.convert_times import CONVERT_TIMES, Convert, UnfitError, integer_bounds
from pipeline.schema.fields import Field
from pipeline.schema.metadata import InvalidMetadataError, read_metadata
from pipeline.schema.privacy import Metadata

__all__ = ["Convert", "UnfitError", "converter"]

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HALF_SURROGATE = re.compile("[\ud800-\udfff]")
_DIGITS = 40  # more than a decimal has
_FLOAT_DIGITS = 15  # a decimal number of 15 digits survives a round trip through a float


def converter(field: Field) -> Convert:
    """Return the function that checks and converts one field's values."""
    if field.nullable:
        value_of = converter(replace(field, null=None))
        return lambda value: None if value is None else value_of(value)
    return _MAKERS[field.logical_type or field.type](field)


def _uuid(_: Field) -> Convert:
    """Convert to lower case, because the text is also a key: two spellings of a session id give one key."""

    def convert(value: Any) -> str:
        if isinstance(value, uuid.UUID):
            return str(value)
        if not isinstance(value, str) or not _UUID.fullmatch(value):
            raise UnfitError("a UUID of the form 8-4-4-4-12")
        return value.lower()

    return convert


def _integer(field: Field) -> Convert:
    low, high = integer_bounds(field)

    def convert(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UnfitError(f"a whole number from {low} to {high}")
        return value

    return convert


def _float(field: Field) -> Convert:
    stored: Callable[[float], float] = _single if field.type == "float" else float
    low = -math.inf if field.minimum is None else stored(float(field.minimum))
    high = math.inf if field.maximum is None else stored(float(field.maximum))
    expected = f"a finite number from {low:g} to {high:g}"

    def convert(value: Any) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise UnfitError(expected)
        try:
            number = stored(float(value))
        except OverflowError:
            raise UnfitError(expected) from None
        if not math.isfinite(number) or not low <= number <= high:
            raise UnfitError(expected)
        return number

    return convert


def _single(value: float) -> float:
    """Round to single precision; a number beyond its range becomes infinite."""
    return c_float(value).value


def _decimal(field: Field) -> Convert:
    widest = Context(prec=_DIGITS).scaleb(Decimal(10**field.precision - 1), -field.scale)
    low = -widest if field.minimum is None else max(-widest, Decimal(field.minimum))
    high = widest if field.maximum is None else min(widest, Decimal(field.maximum))
    expected = f"a decimal number from {low} to {high} with at most {field.scale} digits after the point"
    step = Decimal(1).scaleb(-field.scale)
    exactly = Context(prec=field.precision, traps=[Inexact, InvalidOperation])

    def convert(value: Any) -> bytes:
        if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
            raise UnfitError(expected)
        try:
            number = exactly.quantize(_exact(value), step)
            unscaled = int(exactly.scaleb(number, field.scale))
        except (ArithmeticError, ValueError):
            raise UnfitError(expected) from None
        if not low <= number <= high:
            raise UnfitError(expected)
        size = (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
        if field.size and size > field.size:
            raise UnfitError(expected)
        return unscaled.to_bytes(field.size or size, "big", signed=True)

    return convert


def _exact(value: str | float | Decimal) -> Decimal:
    """The decimal number that a value stands for.

    A JSON number arrives as a float; its shortest form is the number that was written, up to 15 digits.

    Raises:
        ValueError: a float with more digits.
    """
    if not isinstance(value, float):
        return Decimal(value)
    number = Decimal(repr(value))
    if len(number.as_tuple().digits) > _FLOAT_DIGITS:
        raise ValueError
    return number


def _string(field: Field) -> Convert:
    allowed = frozenset(field.values) if field.values is not None else None
    matches = field.pattern.fullmatch if field.pattern is not None else None
    longest = field.max_length if field.max_length is not None else math.inf
    is_json = isinstance(field.privacy, Metadata)

    def convert(value: Any) -> str:
        if is_json and isinstance(value, Mapping):
            value = _json(value)
        if not isinstance(value, str):
            raise UnfitError("a JSON object, as text or as a mapping" if is_json else "text")
        if allowed is not None and value not in allowed:
            raise UnfitError(f"one of {', '.join(field.values or ())}")
        if "\0" in value:
            raise UnfitError("text without NUL bytes")
        if _utf8_length(value) > longest:
            raise UnfitError(f"at most {longest} bytes of UTF-8")
        if matches is not None and not matches(value):
            raise UnfitError(f"text that matches {field.pattern.pattern if field.pattern else ''}")
        if is_json:
            _check_metadata(value)
        return value

    return convert


def _json(value: Mapping[str, Any]) -> str:
    """Write a mapping as JSON; half surrogates are escaped."""
    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        raise UnfitError("values that JSON has: text, finite numbers, true, false, null, lists, mappings") from None
    return _HALF_SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def _check_metadata(text: str) -> None:
    try:
        read_metadata(text)
    except InvalidMetadataError as error:
        raise UnfitError(str(error)) from None


def _utf8_length(text: str) -> int:
    try:
        return len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise UnfitError("text without lone surrogates") from None


def _boolean(_: Field) -> Convert:
    def convert(value: Any) -> bool:
        if not isinstance(value, bool):
            raise UnfitError("true or false")
        return value

    return convert


def _bytes(field: Field) -> Convert:
    longest = field.size or field.max_length or math.inf
    size = f"{field.size} bytes" if field.size else "bytes" if field.max_length is None else f"at most {longest} bytes"

    def convert(value: Any) -> bytes:
        if isinstance(value, str):
            try:
                value = b64decode(value, validate=True)
            except (Base64Error, ValueError):
                raise UnfitError(f"{size}, as Base64 in text") from None
        if not isinstance(value, bytes) or len(value) > longest or (field.size and len(value) != field.size):
            raise UnfitError(f"{size}, as Base64 in text")
        return value

    return convert


def _enum(field: Field) -> Convert:
    def convert(value: Any) -> str:
        if not isinstance(value, str) or value not in (field.values or ()):
            raise UnfitError(f"one of {', '.join(field.values or ())}")
        return value

    return convert


def _members(field: Field) -> tuple[Convert, float]:
    """Return the converter of a list's items or a map's values, and the most of them."""
    assert field.items is not None
    return converter(field.items), math.inf if field.max_items is None else field.max_items


def _array(field: Field) -> Convert:
    convert_item, most = _members(field)

    def convert(value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)) or len(value) > most:
            raise UnfitError("a list" if most == math.inf else f"a list of at most {most} items")
        return [convert_item(item) for item in value]

    return convert


def _map(field: Field) -> Convert:
    convert_value, most = _members(field)
    convert_key = _string(Field(field.name, "string", pattern=field.key_pattern))

    def convert(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or len(value) > most:
            raise UnfitError("an object" if most == math.inf else f"an object of at most {most} members")
        return {convert_key(key): convert_value(member) for key, member in value.items()}

    return convert


_MAKERS: dict[str, Callable[[Field], Convert]] = {
    **CONVERT_TIMES,
    "decimal": _decimal,
    "uuid": _uuid,
    "int": _integer,
    "long": _integer,
    "float": _float,
    "double": _float,
    "string": _string,
    "boolean": _boolean,
    "bytes": _bytes,
    "fixed": _bytes,
    "enum": _enum,
    "array": _array,
    "map": _map,
}
