"""Columns of a micro-batch and verdicts on its records: the data that the decoder hands to the sink."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, compress, count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Reason

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DictionaryColumn:
    """A column of byte strings, each distinct one once: `values[codes[i]]` is row i."""

    codes: NDArray[np.uint32]
    values: list[bytes]

    @classmethod
    def encode(cls, values: Sequence[bytes]) -> "DictionaryColumn":
        """Encode the values of all rows; codes follow the order in which distinct values appear."""
        code_of = defaultdict[bytes, int](count().__next__)  # a new value gets the next code
        codes = np.fromiter(map(code_of.__getitem__, values), np.uint32, len(values))
        return cls(codes, list(code_of))

    def __len__(self) -> int:
        return len(self.codes)

    def with_values(self, values: list[bytes]) -> "DictionaryColumn":
        """Replace each dictionary value by the one at its index in `values`; equal values become one."""
        if len(set(values)) == len(values):
            return DictionaryColumn(self.codes, values)
        encoded = DictionaryColumn.encode(values)
        return DictionaryColumn(encoded.codes[self.codes], encoded.values)

    def to_list(self) -> list[bytes]:
        """The value of each row."""
        return list(map(self.values.__getitem__, self.codes.tolist()))


WIDE = np.dtype([("low", "<u8"), ("high", "<i8")])
"""Whole numbers of 128 bits: unscaled decimals of more than 18 digits."""


@dataclass(frozen=True, slots=True)
class NullableColumn:
    """A column of which some rows have no value."""

    present: Mask
    values: "Column"
    """A value for each row; that of a row without one means nothing."""

    def __len__(self) -> int:
        return len(self.present)


@dataclass(frozen=True, slots=True)
class ItemsColumn:
    """A column of lists, or of maps if it has keys: row i has the next `lengths[i]` of the items."""

    lengths: Ints
    items: "Column"
    keys: "Column | None" = None

    def __len__(self) -> int:
        return len(self.lengths)


Column = NDArray[Any] | list[bytes] | DictionaryColumn | NullableColumn | ItemsColumn
"""The values of one field, row by row.

Integers, times and dates are int64 in the field's unit, decimals unscaled int64 or, of more than 18 digits, WIDE;
floats float32 or float64, booleans bool, UUIDs V16 (big-endian bytes), and bytes without a logical type a list. Strings
are a DictionaryColumn of UTF-8 bytes, but strings of one length whose characters belong to one ASCII class, such as
commits, are V<n>; so are bytes of a fixed size, and enums are a DictionaryColumn.
"""


class Rejection(NamedTuple):
    """A record that isn't stored, and the reason; never its content."""

    position: int
    """Index of the record in the micro-batch."""
    reason: Reason
    detail: str
    """Explanation; names the field at fault and its bound, if there is one."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The valid rows and the rejected records of a micro-batch; together they are all of its records."""

    columns: dict[str, Column]
    """Every field of the newest schema, in its order, even without rows."""
    positions: Ints
    """Index of each row's record in the micro-batch, ascending."""
    rejections: tuple[Rejection, ...]
    """Ordered by position."""
    rejected_times: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """`ts` of the rejected records that have a readable one, in ms, in any order."""

    def __len__(self) -> int:
        return len(self.positions)

    def passed(self, verdicts: "Verdicts") -> "Rows":
        """Apply one verdict to each row: return the rows that pass; the others become rejections."""
        refused = verdicts.rejections(self.positions)
        if not refused:
            return self
        valid = verdicts.passed
        times = [
            self.rejected_times,
            *(np.asarray(self.columns[name])[~valid] for name in self.columns if name == "ts"),
        ]
        rejections = tuple(sorted([*self.rejections, *refused]))
        return replace(self.where(valid), rejections=rejections, rejected_times=np.concatenate(times))

    def where(self, keep: Mask) -> "Rows":
        """Return the rows for which `keep` is true; the others become nothing, and rejections stay."""
        if keep.all():
            return self
        columns = {name: select(column, keep) for name, column in self.columns.items()}
        return replace(self, columns=columns, positions=self.positions[keep])


class Verdicts:
    """The first problem found in each of n records, if any."""

    def __init__(self, count: int) -> None:
        self._problem_of = np.zeros(count, np.int32)  # 0 while a record is fine, else 1 + the index of its problem
        self._problems: list[tuple[Reason, str]] = []

    def __len__(self) -> int:
        return len(self._problem_of)

    @property
    def passed(self) -> Mask:
        """True for each record without a problem."""
        return ~self._problem_of.astype(np.bool_)

    def fail(self, bad: Mask, reason: Reason, detail: str) -> None:
        """Reject the records of `bad` that weren't rejected before."""
        if bad.any():
            self._problems.append((reason, detail))
            self._problem_of[bad & self.passed] = len(self._problems)

    def rejections(self, positions: Ints) -> list[Rejection]:
        """The rejected records; record i is at `positions[i]` in the micro-batch."""
        failed = np.flatnonzero(self._problem_of)
        codes, places = self._problem_of[failed].tolist(), positions[failed].tolist()
        return [Rejection(place, *self._problems[code - 1]) for place, code in zip(places, codes, strict=True)]


class PartVerdicts(Verdicts):
    """Verdicts on values of which a record has none or several: each problem is one of the value's record.

    Args:
        whole: verdicts on the records.
        rows: index of each value's record.
    """

    def __init__(self, whole: Verdicts, rows: Ints) -> None:
        super().__init__(0)
        self._whole, self._rows = whole, rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def passed(self) -> Mask:
        """True for each value of a record without a problem."""
        passed: Mask = self._whole.passed[self._rows]
        return passed

    def fail(self, bad: Mask, reason: Reason, detail: str) -> None:
        """Reject the records that have a value of `bad`."""
        if bad.any():
            records = np.zeros(len(self._whole), np.bool_)
            records[self._rows[bad]] = True
            self._whole.fail(records, reason, detail)


def select(column: Column, keep: Mask) -> Column:
    """The rows of a column where `keep` is true; a dictionary loses the values of the other rows."""
    if isinstance(column, list):
        return list(compress(column, keep.tolist()))
    if isinstance(column, DictionaryColumn):
        used, codes = np.unique(column.codes[keep], return_inverse=True)
        return DictionaryColumn(codes.astype(np.uint32), [column.values[code] for code in used.tolist()])
    if isinstance(column, NullableColumn):
        return NullableColumn(column.present[keep], select(column.values, keep))
    if isinstance(column, ItemsColumn):
        return take(column, np.flatnonzero(keep))
    return column[keep]


def take(column: Column, rows: Ints) -> Column:
    """The rows of a column with these indices, in their order; a dictionary keeps all its values."""
    if isinstance(column, list):
        return [column[row] for row in rows.tolist()]
    if isinstance(column, DictionaryColumn):
        return DictionaryColumn(column.codes[rows], column.values)
    if isinstance(column, NullableColumn):
        return NullableColumn(column.present[rows], take(column.values, rows))
    if isinstance(column, ItemsColumn):
        lengths = column.lengths[rows]
        before = np.cumsum(lengths) - lengths
        starts = (np.cumsum(column.lengths) - column.lengths)[rows]
        items = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
        keys = None if column.keys is None else take(column.keys, items)
        return ItemsColumn(lengths, take(column.items, items), keys)
    return column[rows]


def spread(column: Column, present: Mask) -> Column:
    """Give each row of a column the place of the next true; the values of the other rows mean nothing."""
    if present.all():
        return column
    if isinstance(column, np.ndarray):
        every = np.zeros(len(present), column.dtype)
        every[present] = column
        return every
    if isinstance(column, DictionaryColumn):
        codes = np.zeros(len(present), np.uint32)
        codes[present] = column.codes
        return DictionaryColumn(codes, column.values or [b""])
    assert isinstance(column, list)
    values = iter(column)
    return [next(values) if there else b"" for there in present.tolist()]


def merge(parts: Sequence[Rows]) -> Rows:
    """Merge parts that each hold some records of one micro-batch, in its order; they are used up."""
    if len(parts) == 1:
        return parts[0]
    positions = np.concatenate([part.positions for part in parts])
    # A column of the parts is freed when it is joined: all of them twice would be the most memory of a micro-batch.
    columns = {name: _joined([part.columns.pop(name) for part in parts]) for name in list(parts[0].columns)}
    if (positions[1:] < positions[:-1]).any():
        order = np.argsort(positions)
        positions, columns = positions[order], {name: take(column, order) for name, column in columns.items()}
    rejections = sorted(rejection for part in parts for rejection in part.rejections)
    times = np.concatenate([part.rejected_times for part in parts])
    return Rows(columns, positions, tuple(rejections), times)


def _joined(columns: Sequence[Column]) -> Column:
    """Concatenate columns of one form; dictionaries that share their values stay so."""
    arrays = [column for column in columns if isinstance(column, np.ndarray)]
    if arrays:
        return np.concatenate(arrays)
    nullable = [column for column in columns if isinstance(column, NullableColumn)]
    if nullable:
        present = np.concatenate([column.present for column in nullable])
        return NullableColumn(present, _joined([column.values for column in nullable]))
    lists = [column for column in columns if isinstance(column, ItemsColumn)]
    if lists:
        keys = [column.keys for column in lists if column.keys is not None]
        lengths = np.concatenate([column.lengths for column in lists])
        return ItemsColumn(lengths, _joined([column.items for column in lists]), _joined(keys) if keys else None)
    dictionaries = [column for column in columns if isinstance(column, DictionaryColumn)]
    if dictionaries:
        shared = {id(column.values): column.values for column in dictionaries}  # slices have one list of values
        starts = dict(zip(shared, accumulate(map(len, shared.values()), initial=0), strict=False))
        codes = np.concatenate([column.codes + np.uint32(starts[id(column.values)]) for column in dictionaries])
        if len(shared) == 1:
            return DictionaryColumn(codes, dictionaries[0].values)
        return DictionaryColumn(codes, []).with_values([value for values in shared.values() for value in values])
    return [text for column in columns if isinstance(column, list) for text in column]
