"""Reads the metadata of an event: a JSON object within limits of depth and size."""

from typing import Any

import orjson

MAX_DEPTH = 16
MAX_VALUES = 1_000
"""Limit of objects, arrays and their members together: each may become a hash that is longer than the value."""


class InvalidMetadataError(Exception):
    """A text that isn't a JSON object within the limits; the message names the expectation and quotes no text."""


def read_metadata(text: bytes | str) -> dict[str, Any]:
    """Parse a JSON object. If a key is repeated, the last value counts.

    Raises:
        InvalidMetadataError: the text is no JSON object, is nested too deeply or has too many values.
    """
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise InvalidMetadataError("a JSON object") from None
    if not isinstance(document, dict):
        raise InvalidMetadataError("a JSON object")
    raw = text if isinstance(text, bytes) else text.encode()
    # A short text with few brackets is within the limits, because a value takes at least two bytes: no walk needed.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH or len(raw) > 2 * MAX_VALUES:
        _check_size(document)
    return document


def _check_size(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    depth = values = 0
    while level:
        depth += any(isinstance(value, (dict, list)) for value in level)
        values += len(level)
        if depth > MAX_DEPTH:
            raise InvalidMetadataError(f"at most {MAX_DEPTH} objects and arrays in each other")
        if values > MAX_VALUES:
            raise InvalidMetadataError(f"at most {MAX_VALUES} values")
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
