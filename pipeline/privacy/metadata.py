"""Metadata: a JSON object of which declared keys keep numbers, booleans and enumerated strings; the rest is hashed.

Objects go by the keys they have themselves, wherever they stand; the items of an array by the key of the array.
docs/privacy.md says what becomes of each kind of value.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from pipeline.privacy.hashing import Hasher
from pipeline.schema.privacy import Metadata

MAX_DEPTH = 16
MAX_VALUES = 1_000
"""Objects, arrays and what is in them, all together: each may become a hash, which takes more room than it had."""

_NUMBERS_BELOW = 1_000_000
_DECIMALS = 3


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


class MetadataFilter:
    """Reduces the metadata of one field.

    Args:
        declared: which keys and values are kept.
        hasher: of the rest.
    """

    def __init__(self, declared: Metadata, hasher: Hasher) -> None:
        self._keys: Mapping[str, frozenset[str]] = declared.keys
        self._hasher = hasher

    def __call__(self, text: bytes) -> bytes:
        """The reduced object as canonical JSON: keys sorted, no blanks.

        Raises:
            InvalidMetadataError: as `read_metadata`.
        """
        return orjson.dumps(self._object(read_metadata(text)), option=orjson.OPT_SORT_KEYS)

    def _object(self, members: dict[str, Any]) -> dict[str, Any]:
        kept = {}
        for key, value in members.items():
            allowed = self._keys.get(key)
            name = key if allowed is not None else f"sha256:{self._hasher.digest(key)}"
            kept[name] = self._value(value, allowed)
        return kept

    def _value(self, value: Any, allowed: frozenset[str] | None) -> Any:
        """What is kept of a value; `allowed` are the strings of its key, None when that isn't declared."""
        kind = type(value)
        if kind is str:
            return value if allowed and value in allowed else self._hasher.mask(value)
        if kind is dict:
            return self._object(value)
        if kind is list:
            return [self._value(item, allowed) for item in value]
        if kind is bool or value is None or (allowed is not None and _is_small(value)):
            return value
        return self._hasher.mask(orjson.dumps(value).decode())


def _is_small(value: float) -> bool:
    below = -_NUMBERS_BELOW < value < _NUMBERS_BELOW
    return below and (type(value) is int or round(value, _DECIMALS) == value)
