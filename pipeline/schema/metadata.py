"""Reads the metadata of an event: a JSON object within limits of depth and size."""

import json
import math
import re
from typing import Any, NoReturn

import orjson

MAX_DEPTH = 16
MAX_VALUES = 1_000
"""Limit of objects, arrays and their members together: each may become a hash that is longer than the value."""
SHORT_BYTES = 2 * MAX_VALUES
"""Size up to which a text with at most MAX_DEPTH brackets is within the limits: a value takes at least two bytes."""
EXACT_BELOW = 2.0**63
"""Floats from here on may stand for whole numbers that don't fit 64 bits, rounded."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_OBJECT = "a JSON object"
_MOST_DIGITS = 20
_TOO_DEEP = f"at most {MAX_DEPTH} objects and arrays in each other"


class Number(str):
    """A number that neither a float nor 64 bits hold exactly, as digits."""

    __slots__ = ()


class InvalidMetadataError(Exception):
    """A text that isn't a JSON object within the limits; the message names the expectation and quotes no text."""


def read_flat(text: bytes) -> dict[str, Any] | None:
    """Parse a short JSON object, without a check of its limits; None if it needs the care of `read_metadata`."""
    if len(text) > SHORT_BYTES:
        return None
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return document if type(document) is dict else None


def read_metadata(text: bytes | str, *, exact: bool = False) -> dict[str, Any]:
    """Parse a JSON object. If a key is repeated, the last value counts.

    A half surrogate, such as `"\\ud83d"` alone, is no character: the replacement character U+FFFD stands in its place.

    Args:
        text: the JSON text.
        exact: return numbers of EXACT_BELOW and more as Number; otherwise whole numbers beyond 64 bits are floats.

    Raises:
        InvalidMetadataError: the text is no JSON object, is nested too deeply or has too many values.
    """
    if not exact:
        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError:
            return _read_exactly(text)
        if not isinstance(document, dict):
            raise InvalidMetadataError(_OBJECT)
        return within_limits(document, text if isinstance(text, bytes) else text.encode())
    return _read_exactly(text)


def within_limits(document: dict[str, Any], text: bytes) -> dict[str, Any]:
    """Return the object of a text.

    Raises:
        InvalidMetadataError: it is nested too deeply or has too many values.
    """
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH or len(text) > SHORT_BYTES:
        _check_size(document)
    return document


def _read_exactly(text: bytes | str) -> dict[str, Any]:
    """Parse what orjson refuses or rounds: half surrogates, and numbers beyond its range."""
    try:
        plain = text.decode() if isinstance(text, bytes) else text
        document = json.loads(plain, parse_int=_whole, parse_float=_fraction, parse_constant=_refuse)
    except RecursionError:
        raise InvalidMetadataError(_TOO_DEEP) from None
    except ValueError:
        raise InvalidMetadataError(_OBJECT) from None
    if not isinstance(document, dict):
        raise InvalidMetadataError(_OBJECT)
    _check_size(document)
    return {_cleaned(key): _cleaned(value) for key, value in document.items()}


def _whole(digits: str) -> int | Number:
    if len(digits) > _MOST_DIGITS:  # Python itself refuses thousands of digits
        return Number(digits)
    number = int(digits)
    return number if -(2**63) <= number < 2**64 else Number(digits)


def _fraction(digits: str) -> float | Number:
    number = float(digits)
    if math.isinf(number):
        return Number(digits)
    return number if abs(number) < EXACT_BELOW else Number(orjson.dumps(number).decode())


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity aren't JSON


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_cleaned(inner) for inner in value]
    return _SURROGATE.sub("\ufffd", value) if type(value) is str else value


def _check_size(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    depth = values = 0
    while level:
        depth += any(isinstance(value, (dict, list)) for value in level)
        values += len(level)
        if depth > MAX_DEPTH:
            raise InvalidMetadataError(_TOO_DEEP)
        if values > MAX_VALUES:
            raise InvalidMetadataError(f"at most {MAX_VALUES} values")
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
