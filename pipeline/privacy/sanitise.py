"""Applies the declared treatments to the columns of a micro-batch; the result may be stored."""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import (
    Column,
    DictionaryColumn,
    ItemsColumn,
    NullableColumn,
    PartVerdicts,
    Rows,
    Verdicts,
    select,
    spread,
)
from pipeline.errors import ConfigError, Reason
from pipeline.privacy.hashing import Hasher
from pipeline.privacy.metadata import MetadataFilter
from pipeline.privacy.text import sanitised
from pipeline.privacy.user_agents import UserAgentReducer
from pipeline.schema.fields import Field
from pipeline.schema.metadata import InvalidMetadataError
from pipeline.schema.privacy import FORMS, Metadata, Text, UserAgent
from pipeline.schema.versions import Schema

CACHE_BYTES = 4 * 1024 * 1024
"""Limit of one field's cache of values and their replacements; a full cache is emptied."""

_MOSTLY = 0.5  # share of new values in a micro-batch from which on the cache costs more than it saves
_LEARNED = 256  # values of such a micro-batch that it gets all the same
_ENTRY_BYTES = 200  # estimate for two objects and their dictionary entry, without their text


class Sanitiser:
    """Reduces the valid rows of one family to the values that may be stored; safe to use from several threads.

    Args:
        schema: the family's newest schema.
        hasher: hashes values that aren't kept.

    Raises:
        ConfigError: a string with open text doesn't declare its treatment.
    """

    def __init__(self, schema: Schema, hasher: Hasher) -> None:
        for field in schema.fields:
            if field.undeclared:
                raise ConfigError(f"{schema.file}: {field.name}.privacy: expected {FORMS}")
        treats = {field.name: _treat(field, hasher) for field in schema.fields}
        self._memories = {name: _Memory(treat) for name, treat in treats.items() if treat}

    def __call__(self, rows: Rows) -> Rows:
        """Return the rows with treated columns; a row whose value can't be treated becomes a rejection."""
        verdicts = Verdicts(len(rows))
        columns = {name: self._column(name, column, verdicts) for name, column in rows.columns.items()}
        return replace(rows, columns=columns).passed(verdicts)

    def _column(self, name: str, column: Column, verdicts: Verdicts) -> Column:
        memory = self._memories.get(name)
        if memory is None:
            return column
        if isinstance(column, NullableColumn):
            there = PartVerdicts(verdicts, np.flatnonzero(column.present))
            values = self._column(name, select(column.values, column.present), there)
            return NullableColumn(column.present, spread(values, column.present))
        if isinstance(column, ItemsColumn):
            of = PartVerdicts(verdicts, np.repeat(np.arange(len(column)), column.lengths))
            return replace(column, items=self._column(name, column.items, of))
        if not isinstance(column, DictionaryColumn):
            column = DictionaryColumn.encode(column.tolist() if isinstance(column, np.ndarray) else column)
        treated = _accepted(name, memory.treated(column.values, len(column)), column.codes, verdicts)
        return column if treated == column.values else column.with_values(treated)


class _Refusal(NamedTuple):
    """A value that can't be treated."""

    expected: str


_Treated = bytes | _Refusal
_Treat = Callable[[Sequence[bytes]], Sequence[_Treated]]


class _Memory:
    """Cache of treated values, so that a repeated value is treated once.

    If nearly all of a micro-batch's values are new, it is treated without the cache, which learns a few of them.

    Args:
        treat: computes the replacements of distinct values.
        most_bytes: size at which the cache is emptied.
    """

    def __init__(self, treat: _Treat, most_bytes: int = CACHE_BYTES) -> None:
        self._treat = treat
        self._most_bytes = most_bytes
        self._known: dict[bytes, _Treated] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def treated(self, values: Sequence[bytes], rows: int = 0) -> list[_Treated]:
        """Return the replacement of each value; a micro-batch may have more rows than distinct values."""
        with self._lock:
            known = self._known
            found: list[Any] = list(map(known.get, values))
            if found.count(None) > max(_LEARNED, _MOSTLY * max(rows, len(values))):
                treated = list(self._treat(values))
                self._learn(values[:_LEARNED], treated[:_LEARNED])
                return treated
            new = list(dict.fromkeys(value for value, known_as in zip(values, found, strict=True) if known_as is None))
            if new:
                self._learn(new, self._treat(new))
                found = list(map(known.get, values))
        return found

    def _learn(self, values: Sequence[bytes], treated: Sequence[_Treated]) -> None:
        for value, replacement in zip(values, treated, strict=True):
            self._known[value] = replacement
            self._bytes += len(value) + len(replacement) + _ENTRY_BYTES
        if self._bytes > self._most_bytes:
            self._known, self._bytes = {}, 0


def _treat(field: Field, hasher: Hasher) -> _Treat | None:
    """Return the function that treats distinct values of a field; None if they are stored unchanged."""
    match (field.items or field).privacy:
        case Text(keep):
            return lambda values: _texts(values, keep)
        case UserAgent():
            return UserAgentReducer(hasher)
        case Metadata() as declared:
            metadata = MetadataFilter(declared, hasher)
            return lambda values: _filtered(metadata, values)
    return None


def _texts(values: Sequence[bytes], keep: re.Pattern[str] | None) -> list[bytes]:
    texts = [value.decode() for value in values]
    if keep is not None:
        texts = [text for text in texts if not keep.fullmatch(text)]
    treated = dict(zip(texts, sanitised(texts), strict=True))
    return [treated.get(text, text).encode() for text in (value.decode() for value in values)]


def _filtered(metadata: MetadataFilter, values: Sequence[bytes]) -> list[_Treated]:
    usual = metadata.usual(values)
    if None not in usual:
        return list[Any](usual)
    return [_reduced(metadata, value) if made is None else made for value, made in zip(values, usual, strict=True)]


def _reduced(metadata: MetadataFilter, value: bytes) -> _Treated:
    try:
        return metadata(value)
    except InvalidMetadataError as error:
        return _Refusal(str(error))


def _accepted(name: str, treated: Sequence[_Treated], codes: NDArray[np.uint32], verdicts: Verdicts) -> list[bytes]:
    """Reject the rows whose value is refused, and return the distinct values with empty bytes in place of those."""
    if set(map(type, treated)) <= {bytes}:
        return list[Any](treated)
    for refusal in sorted({value for value in treated if isinstance(value, _Refusal)}):
        bad = np.fromiter((value == refusal for value in treated), np.bool_, len(treated))
        verdicts.fail(bad[codes], Reason.INVALID_JSON, f"{name}: expected {refusal.expected}")
    return [value if isinstance(value, bytes) else b"" for value in treated]
