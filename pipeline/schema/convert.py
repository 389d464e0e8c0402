"""Converts the field values of an event to the values that Avro writes, and checks them against the schema.

| declared | accepted |
|---|---|
| timestamp | aware datetime, ISO 8601 text with an offset or Z, whole milliseconds since 1970; cut to the millisecond |
| money | text, int, Decimal, or a float that is exact in decimal; never rounded |
| UUID | UUID, or text of the form 8-4-4-4-12 in either case |
| int, long | int |
| float, double | finite int or float; bounds apply to the stored value |
| string, boolean, bytes | str, bool, bytes |
| metadata | str with a JSON object, or a mapping |
"""

import json
import math
import re
import uuid
from collections.abc import Callable, Mapping
from ctypes import c_float
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

from pipeline.schema.fields import Field
from pipeline.schema.metadata import InvalidMetadataError, read_metadata
from pipeline.schema.privacy import Metadata

Convert = Callable[[Any], Any]
"""Function that returns the value for Avro, or raises UnfitError."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HALF_SURROGATE = re.compile("[\ud800-\udfff]")
_BITS = {"int": 32, "long": 64}
_FLOAT_DIGITS = 15  # a decimal number of 15 digits survives a round trip through a float


class UnfitError(Exception):
    """A value that doesn't fit its field; the message names the expected value."""


def converter(field: Field) -> Convert:
    """Return the function that checks and converts one field's values."""
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
    low, high = _integer_bounds(field)

    def convert(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UnfitError(f"a whole number from {low} to {high}")
        return value

    return convert


def _timestamp(field: Field) -> Convert:
    low, high = _integer_bounds(field)
    expected = f"ISO 8601 with an offset or Z, an aware datetime, or whole milliseconds from {low} to {high}"

    def convert(value: Any) -> int:
        if isinstance(value, str):
            value = _parsed(value)
        if isinstance(value, datetime) and value.tzinfo is not None:
            value = (value - _EPOCH) // _MILLISECOND
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UnfitError(expected)
        return value

    return convert


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _integer_bounds(field: Field) -> tuple[int, int]:
    limit = 1 << _BITS[field.type] - 1
    low = -limit if field.minimum is None else max(-limit, math.ceil(field.minimum))
    high = limit - 1 if field.maximum is None else min(limit - 1, math.floor(field.maximum))
    return low, high


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
    widest = Decimal(10**field.precision - 1).scaleb(-field.scale)
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
            unscaled = int(number.scaleb(field.scale))
        except (ArithmeticError, ValueError):
            raise UnfitError(expected) from None
        if not low <= number <= high:
            raise UnfitError(expected)
        size = (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
        return unscaled.to_bytes(size, "big", signed=True)

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


def _instance(wanted: type, expected: str) -> Callable[[Field], Convert]:
    def convert(value: Any) -> Any:
        if not isinstance(value, wanted):
            raise UnfitError(expected)
        return value

    return lambda _: convert


_MAKERS: dict[str, Callable[[Field], Convert]] = {
    "timestamp-millis": _timestamp,
    "decimal": _decimal,
    "uuid": _uuid,
    "int": _integer,
    "long": _integer,
    "float": _float,
    "double": _float,
    "string": _string,
    "boolean": _instance(bool, "true or false"),
    "bytes": _instance(bytes, "bytes"),
}
