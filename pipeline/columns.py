"""The columns of a micro-batch, and the verdicts on its records: what flows from the decoder to the sink."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, compress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Reason

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DictionaryColumn:
    """A column of few distinct byte strings: `values[codes[i]]` is row i."""

    codes: NDArray[np.uint32]
    values: list[bytes]

    @classmethod
    def encode(cls, values: Sequence[bytes]) -> "DictionaryColumn":
        """The column of these row values; each distinct value gets a code, in order of appearance."""
        distinct = list(dict.fromkeys(values))
        code_of = {value: code for code, value in enumerate(distinct)}
        return cls(np.fromiter(map(code_of.__getitem__, values), np.uint32, len(values)), distinct)

    def __len__(self) -> int:
        return len(self.codes)

    def with_values(self, values: list[bytes]) -> "DictionaryColumn":
        """The column with `values[i]` in place of its value i; equal values become one."""
        encoded = DictionaryColumn.encode(values)
        return DictionaryColumn(encoded.codes[self.codes], encoded.values)

    def to_list(self) -> list[bytes]:
        """Row by row."""
        return list(map(self.values.__getitem__, self.codes.tolist()))


Column = NDArray[Any] | list[bytes] | DictionaryColumn
"""Integers and timestamps (ms) as int64, decimals as unscaled int64, floats as float32 or float64, booleans as bool,
UUIDs as V16 (big-endian bytes), free text as a list of UTF-8 bytes, closed sets and patterned strings as
DictionaryColumn, those whose pattern is one class of ASCII characters n times, such as commits, as V<n>."""


class Rejection(NamedTuple):
    """A record that isn't stored: its place in the micro-batch, and why; never its content."""

    position: int
    reason: Reason
    detail: str
    """The field and the bound it broke, where a field is to blame."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The valid rows of a micro-batch, and the records that were rejected; together they are all of it."""

    columns: dict[str, Column]
    """Every field of the newest schema, in its order, even when there is no row."""
    positions: Ints
    """Place of each row's record in the micro-batch, ascending."""
    rejections: tuple[Rejection, ...]
    """By position, ascending."""

    def __len__(self) -> int:
        return len(self.positions)

    def passed(self, verdicts: "Verdicts") -> "Rows":
        """The rows that these verdicts, one for each, let pass; the others are rejections from now on."""
        refused = verdicts.rejections(self.positions)
        if not refused:
            return self
        valid = verdicts.passed
        columns = {name: select(column, valid) for name, column in self.columns.items()}
        return Rows(columns, self.positions[valid], tuple(sorted([*self.rejections, *refused])))


class Verdicts:
    """What is wrong with each of n records: the first problem found, or none."""

    def __init__(self, count: int) -> None:
        self._problem_of = np.zeros(count, np.int32)  # 0 while a record is fine, else 1 + the index of its problem
        self._problems: list[tuple[Reason, str]] = []

    @property
    def passed(self) -> Mask:
        """The records that nothing has rejected."""
        return ~self._problem_of.astype(np.bool_)

    def fail(self, bad: Mask, reason: Reason, detail: str) -> None:
        """Reject the records of `bad` that nothing else has rejected before."""
        if bad.any():
            self._problems.append((reason, detail))
            self._problem_of[bad & self.passed] = len(self._problems)

    def rejections(self, positions: Ints) -> list[Rejection]:
        """The rejected records; record i is the one at `positions[i]` of the micro-batch."""
        failed = np.flatnonzero(self._problem_of)
        codes, places = self._problem_of[failed].tolist(), positions[failed].tolist()
        return [Rejection(place, *self._problems[code - 1]) for place, code in zip(places, codes, strict=True)]


def select(column: Column, keep: Mask) -> Column:
    """The rows of a column where `keep` is true; nothing of the other rows stays behind."""
    if isinstance(column, list):
        return list(compress(column, keep.tolist()))
    if isinstance(column, DictionaryColumn):
        used, codes = np.unique(column.codes[keep], return_inverse=True)
        return DictionaryColumn(codes.astype(np.uint32), [column.values[code] for code in used.tolist()])
    return column[keep]


def merge(parts: Sequence[Rows]) -> Rows:
    """One Rows out of several that each hold some records of the same micro-batch, in the micro-batch's order."""
    if len(parts) == 1:
        return parts[0]
    positions = np.concatenate([part.positions for part in parts])
    order = np.argsort(positions)
    columns = {name: _concatenate([part.columns[name] for part in parts], order) for name in parts[0].columns}
    rejections = sorted(rejection for part in parts for rejection in part.rejections)
    return Rows(columns, positions[order], tuple(rejections))


def _concatenate(columns: Sequence[Column], order: Ints) -> Column:
    """Columns of one form, one after the other, then put in order."""
    arrays = [column for column in columns if isinstance(column, np.ndarray)]
    if arrays:
        return np.concatenate(arrays)[order]
    coded = [column for column in columns if isinstance(column, DictionaryColumn)]
    if coded:
        offsets = accumulate((len(column.values) for column in coded), initial=0)
        codes = np.concatenate(
            [column.codes + np.uint32(offset) for column, offset in zip(coded, offsets, strict=False)]
        )
        return DictionaryColumn(codes[order], []).with_values([value for column in coded for value in column.values])
    texts = [text for column in columns if isinstance(column, list) for text in column]
    return [texts[row] for row in order.tolist()]
