"""Reads Avro fields of many records at once: one position per record, each step a numpy operation.

The encoding is Avro's binary one, in canonical form only: shortest varints, booleans 0 or 1. So each value has one
encoding, and encoding it again gives the same bytes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Ints, Mask, PartVerdicts, Spans, Verdicts, varints, zigzag
from pipeline.decode.raw import Items, Nullable, Raw, Symbols
from pipeline.decode.strict_walk import ItemPlaces, MalformedError, item_places
from pipeline.errors import Reason

_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1


class Cursor:
    """A position in each of n records; reading a field advances it. A rejected record is carried along and ignored.

    Args:
        records: spans of the records' bodies, without framing.
    """

    def __init__(self, records: Spans) -> None:
        self.verdicts: Verdicts = Verdicts(len(records))
        self._buffer = records.buffer
        self._position = records.starts
        self._end = records.starts + records.lengths

    def read(self, avro_type: Any, name: str) -> Raw:
        """Read the next field of every record.

        Args:
            avro_type: type without logical types: a scalar, a union of null and a scalar, or a list or map of scalars.
            name: name of the field.
        """
        match avro_type:
            case "long":
                return self._longs(name)
            case "int":
                return self._ints(name)
            case "float":
                return self._fixed(4, "<f4", name)
            case "double":
                return self._fixed(8, "<f8", name)
            case "boolean":
                return self._booleans(name)
            case [*branches]:
                return self._nullable(branches, name)
            case {"type": "enum", "symbols": symbols}:
                return Symbols(self._places(len(symbols), name), symbols)
            case {"type": "fixed", "size": size}:
                start = self._position
                self._advance(size, name)
                return Spans(self._buffer, start, np.full(len(start), size))
            case {"type": "array" | "map"}:
                return self._items(avro_type, name)
        return self._spans(name)

    def finish(self) -> None:
        """Reject each record that has bytes after its last field."""
        self.verdicts.fail(self._position != self._end, Reason.TRAILING_BYTES, "bytes after the last field")

    def _longs(self, name: str) -> Ints:
        value, length, malformed = varints(self._buffer, self._position)
        self._advance(length, name)
        self.verdicts.fail(malformed, Reason.MALFORMED, f"{name}: not a canonical varint of at most 64 bits")
        return zigzag(value)

    def _ints(self, name: str) -> Ints:
        value = self._longs(name)
        self.verdicts.fail((value < _INT_MIN) | (value > _INT_MAX), Reason.MALFORMED, f"{name}: wider than 32 bits")
        return value

    def _places(self, count: int, name: str) -> Ints:
        """Read the places of symbols, or of branches of a union."""
        value = self._ints(name)
        beyond = (value < 0) | (value >= count)
        self.verdicts.fail(beyond, Reason.MALFORMED, f"{name}: no such branch or symbol")
        value[beyond] = 0
        return value

    def _nullable(self, branches: list[Any], name: str) -> Nullable:
        present = self._places(len(branches), name) != branches.index("null")
        rows = np.flatnonzero(present)
        part = self._part(rows)
        values = part.read(next(branch for branch in branches if branch != "null"), name)
        self._position = self._position.copy()
        self._position[rows] = part._position
        return Nullable(present, values)

    def _items(self, avro_type: Any, name: str) -> Items:
        """Read lists or maps: a walk over each record finds the items, then they are read by column."""
        found = [ItemPlaces()] * len(self._position)
        problems: dict[tuple[Reason, str], list[int]] = {}
        after = self._position.copy()
        for row in np.flatnonzero(self.verdicts.passed).tolist():
            start = int(self._position[row])
            try:
                found[row] = item_places(avro_type, self._buffer.data, start, int(self._end[row]), name)
                after[row] = found[row].end
            except MalformedError as error:
                problems.setdefault((error.reason, str(error)), []).append(row)
        for (reason, detail), rows in problems.items():
            bad = np.zeros(len(after), np.bool_)
            bad[rows] = True
            self.verdicts.fail(bad, reason, detail)
        self._position = after
        lengths = np.fromiter((len(each.items) for each in found), np.int64, len(found))
        rows_of = np.repeat(np.arange(len(found)), lengths)
        keys, member = None, avro_type.get("items")
        if member is None:
            member = avro_type["values"]
            keys = self._part(rows_of, [place for each in found for place in each.keys])._spans(name)
        items = self._part(rows_of, [place for each in found for place in each.items]).read(member, name)
        return Items(lengths, items, keys)

    def _part(self, rows: Ints, positions: list[int] | None = None) -> "Cursor":
        """Make a cursor over values of some records; positions default to those of the records."""
        part = Cursor.__new__(Cursor)
        part.verdicts = PartVerdicts(self.verdicts, rows)
        part._buffer, part._end = self._buffer, self._end[rows]
        part._position = self._position[rows] if positions is None else np.array(positions, np.int64)
        return part

    def _booleans(self, name: str) -> Mask:
        value = self._fixed(1, "u1", name)
        self.verdicts.fail(value > 1, Reason.MALFORMED, f"{name}: a boolean is 0 or 1")
        return value.astype(np.bool_)

    def _spans(self, name: str) -> Spans:
        length = self._longs(name)
        negative, beyond = length < 0, length > self._end - self._position
        self.verdicts.fail(negative, Reason.MALFORMED, f"{name}: negative length")
        self.verdicts.fail(beyond, Reason.TRUNCATED, f"{name}: the record ends inside it")
        length[negative | beyond] = 0
        start = self._position
        self._position = start + length
        return Spans(self._buffer, start, length)

    def _fixed(self, width: int, dtype: str, name: str) -> NDArray[Any]:
        value = self._buffer.gather(self._position, width, dtype)
        self._advance(width, name)
        return value

    def _advance(self, length: Ints | int, name: str) -> None:
        after = self._position + length
        self.verdicts.fail(after > self._end, Reason.TRUNCATED, f"{name}: the record ends inside it")
        self._position = np.minimum(after, self._end)
