"""Applies the declared treatments to the columns of a micro-batch; what comes out may be stored."""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pipeline.columns import Column, DictionaryColumn, Rows, Verdicts
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
"""Of one field: distinct values that were seen, and what became of them. Beyond it, all are forgotten."""

_ENTRY_BYTES = 200  # of two objects and their place in a dictionary, without their text


class Sanitiser:
    """Makes of the valid rows of one family what may be stored; may be used from several threads at once.

    Args:
        schema: the family's newest.
        hasher: for what isn't kept.

    Raises:
        ConfigError: a string that can hold anything doesn't declare its treatment.
    """

    def __init__(self, schema: Schema, hasher: Hasher) -> None:
        for field in schema.fields:
            if field.undeclared:
                raise ConfigError(f"{schema.file}: {field.name}.privacy: expected {FORMS}")
        treats = {field.name: _treat(field, hasher) for field in schema.fields}
        self._memories = {name: _Memory(treat) for name, treat in treats.items() if treat}

    def __call__(self, rows: Rows) -> Rows:
        """The rows with treated columns; those that can't be treated are rejections instead."""
        verdicts = Verdicts(len(rows))
        columns = {name: self._column(name, column, verdicts) for name, column in rows.columns.items()}
        return replace(rows, columns=columns).passed(verdicts)

    def _column(self, name: str, column: Column, verdicts: Verdicts) -> Column:
        memory = self._memories.get(name)
        if memory is None:
            return column
        if isinstance(column, DictionaryColumn):
            treated = _accepted(name, memory.treated(column.values), Verdicts(len(column.values)))
            return column if treated == column.values else column.with_values(treated)
        return _accepted(name, memory.treated(column.tolist() if isinstance(column, np.ndarray) else column), verdicts)


class _Refusal(NamedTuple):
    """A value that can't be treated."""

    expected: str


_Treated = bytes | _Refusal
_Treat = Callable[[Sequence[bytes]], Sequence[_Treated]]


class _Memory:
    """What became of the values seen lately, so that each distinct one is treated once."""

    def __init__(self, treat: _Treat) -> None:
        self._treat = treat
        self._known: dict[bytes, _Treated] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def treated(self, values: Sequence[bytes]) -> list[_Treated]:
        """What is stored in place of each value."""
        with self._lock:
            known, new = self._known, list(set(values).difference(self._known))
            for value, treated in zip(new, self._treat(new), strict=True):
                known[value] = treated
                self._bytes += len(value) + len(treated) + _ENTRY_BYTES
            if self._bytes > CACHE_BYTES:
                self._known, self._bytes = {}, 0
        return list(map(known.__getitem__, values))


def _treat(field: Field, hasher: Hasher) -> _Treat | None:
    """What is done to many distinct values of a field; None when they are kept."""
    match field.privacy:
        case Text(keep):
            return lambda values: _texts(values, keep)
        case UserAgent():
            reducer = UserAgentReducer(hasher)
            return lambda values: list(map(reducer, values))
        case Metadata() as declared:
            metadata = MetadataFilter(declared, hasher)
            return lambda values: [_reduced(metadata, value) for value in values]
    return None


def _texts(values: Sequence[bytes], keep: re.Pattern[str] | None) -> list[bytes]:
    texts = [value.decode() for value in values]
    if keep is not None:
        texts = [text for text in texts if not keep.fullmatch(text)]
    treated = dict(zip(texts, sanitised(texts), strict=True))
    return [treated.get(text, text).encode() for text in (value.decode() for value in values)]


def _reduced(metadata: MetadataFilter, value: bytes) -> _Treated:
    try:
        return metadata(value)
    except InvalidMetadataError as error:
        return _Refusal(str(error))


def _accepted(name: str, treated: Sequence[_Treated], verdicts: Verdicts) -> list[bytes]:
    """What was treated; rows with a refusal are rejected, and hold nothing."""
    for refusal in sorted({value for value in treated if isinstance(value, _Refusal)}):
        bad = np.fromiter((value == refusal for value in treated), np.bool_, len(treated))
        verdicts.fail(bad, Reason.INVALID_JSON, f"{name}: expected {refusal.expected}")
    return [value if isinstance(value, bytes) else b"" for value in treated]
