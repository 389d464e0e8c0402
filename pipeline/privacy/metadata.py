"""Filters metadata, a JSON object: declared keys keep numbers, booleans and enumerated strings; the rest is hashed.

The rules apply to the keys of nested objects too; the items of an array follow the key of the array. docs/privacy.md
lists the treatment of each kind of value.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from pipeline.columns.core import compiled
from pipeline.columns.core_metadata import MetadataRules
from pipeline.privacy.hashing import Hasher
from pipeline.schema.metadata import (
    EXACT_BELOW,
    MAX_DEPTH,
    SHORT_BYTES,
    Number,
    read_flat,
    read_metadata,
    within_limits,
)
from pipeline.schema.privacy import Metadata

_NUMBERS_BELOW = 1_000_000
_DECIMALS = 3


class _RoundedError(Exception):
    """A number that was perhaps rounded when it was read; its hash has to be that of its digits."""


class MetadataFilter:
    """Filters the metadata of one field.

    Args:
        declared: the keys and values that are kept.
        hasher: hashes the rest.
    """

    def __init__(self, declared: Metadata, hasher: Hasher) -> None:
        self._keys: Mapping[str, frozenset[str]] = declared.keys
        self._hasher = hasher
        self._rules = MetadataRules(
            hasher.key_block, declared.keys, SHORT_BYTES, MAX_DEPTH, below=_NUMBERS_BELOW, decimals=_DECIMALS
        )

    def usual(self, texts: Sequence[bytes]) -> list[bytes | None]:
        """Filter the texts of the usual form with the compiled core; None for each that needs a call of this filter."""
        core = compiled()
        return [None] * len(texts) if core is None else self._rules.filtered(core, texts)

    def __call__(self, text: bytes) -> bytes:
        """Return the filtered object as canonical JSON: sorted keys, no blanks.

        Raises:
            InvalidMetadataError: as `read_metadata`.
        """
        document = read_flat(text)
        if document is not None and self._is_kept(document):
            return _written(document)
        try:
            kept = self._object(read_metadata(text) if document is None else within_limits(document, text))
        except _RoundedError:
            kept = self._object(read_metadata(text, exact=True))
        return _written(kept)

    def _is_kept(self, document: dict[str, Any]) -> bool:
        """Tell whether all members of an object are kept as they are; the usual case, in one pass without calls."""
        keys = self._keys
        for key, value in document.items():
            allowed = keys.get(key)
            if allowed is None:
                return False
            kind = type(value)
            if kind is str:
                if value not in allowed:
                    return False
            elif kind is int:
                if not -_NUMBERS_BELOW < value < _NUMBERS_BELOW:
                    return False
            elif value is not None and kind is not bool:
                return False
        return True

    def _object(self, members: dict[str, Any]) -> dict[str, Any]:
        kept = {}
        for key, value in members.items():
            allowed = self._keys.get(key)
            name = key if allowed is not None else f"sha256:{self._hasher.digest(key)}"
            kept[name] = self._value(value, allowed)
        return kept

    def _value(self, value: Any, allowed: frozenset[str] | None) -> Any:
        """Filter a value; `allowed` are the kept strings of its key, None for an undeclared key."""
        kind = type(value)
        if kind is str:
            return value if allowed and value in allowed else self._hasher.mask(value)
        if kind is dict:
            return self._object(value)
        if kind is list:
            return [self._value(item, allowed) for item in value]
        if kind is Number:
            return self._hasher.mask(str(value))
        if kind is bool or value is None or (allowed is not None and _is_small(value)):
            return value
        if kind is float and not -EXACT_BELOW < value < EXACT_BELOW:
            raise _RoundedError
        return self._hasher.mask(orjson.dumps(value).decode())


def _written(document: dict[str, Any]) -> bytes:
    """Return an object as canonical JSON, as bytes of their own.

    orjson returns the beginning of a longer allocation. The rest of it is free, but too short for the next one: 50,000
    short objects held 200 MB.
    """
    return bytes(memoryview(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)))


def _is_small(value: float) -> bool:
    below = -_NUMBERS_BELOW < value < _NUMBERS_BELOW
    return below and (type(value) is int or round(value, _DECIMALS) == value)
