"""Metadata as a schema declares it: a text that is a JSON object, within limits."""

from typing import Any

import orjson

MAX_DEPTH = 16
MAX_VALUES = 1_000
"""Objects, arrays and what is in them, all together: each may become a hash, which takes more room than it had."""


class InvalidMetadataError(Exception):
    """A text that isn't a JSON object within the limits; the message is what was expected, without any of the text."""


def read_metadata(text: bytes | str) -> dict[str, Any]:
    """The object that a text of JSON is. Of two equal keys the last one counts.

    Raises:
        InvalidMetadataError: it is none, is nested too deeply or has too many values.
    """
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise InvalidMetadataError("a JSON object") from None
    if not isinstance(document, dict):
        raise InvalidMetadataError("a JSON object")
    raw = text if isinstance(text, bytes) else text.encode()
    # What can't be too deep or too much isn't walked: a value takes at least two bytes.
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
