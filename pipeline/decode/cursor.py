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
        verdicts: gets the problems; None for new ones.
    """

    def __init__(self, records: Spans, verdicts: Verdicts | None = None) -> None:
        self.verdicts = verdicts or Verdicts(len(records))
        self._buffer = records.buffer
        self.position = records.starts
        self._end = records.starts + records.lengths

    def read(self, avro_type: Any, name: str) -> Raw:
        """Read the next field of every record.

        Args:
            avro_type: type without logical types: a scalar, a union of null and a scalar, or a list or map of scalars.
            name: name of the field.
        """
        if isinstance(avro_type, str):
            return self._primitive(avro_type, name)
        match avro_type:
            case [*branches]:
                return self._nullable(branches, name)
            case {"type": "enum", "symbols": symbols}:
                return Symbols(self._places(len(symbols), name), symbols)
            case {"type": "fixed", "size": size}:
                start = self.position
                self._advance(size, name)
                return Spans(self._buffer, start, np.full(len(start), size))
        return self._items(avro_type, name)

    def _primitive(self, avro_type: str, name: str) -> NDArray[Any] | Spans:
        match avro_type:
            case "long":
                return self._longs(name)
            case "int":
                return self._ints(name)
            case "float" | "double":
                width = 4 if avro_type == "float" else 8
                return self._fixed(width, f"<f{width}", name)
            case "boolean":
                return self._booleans(name)
        return self._spans(name)

    def finish(self) -> None:
        """Reject each record that has bytes after its last field."""
        self.verdicts.fail(self.position != self._end, Reason.TRAILING_BYTES, "bytes after the last field")

    def _longs(self, name: str) -> Ints:
        value, length, malformed = varints(self._buffer, self.position)
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
        part = self._part(rows, self.position[rows])
        values = part.read(next(branch for branch in branches if branch != "null"), name)
        self.position = self.position.copy()
        self.position[rows] = part.position
        return Nullable(present, values)

    def _items(self, avro_type: Any, name: str) -> Items:
        """Read lists or maps: a walk over each record finds the items, then they are read by column."""
        found = [ItemPlaces()] * len(self.position)
        problems: dict[tuple[Reason, str], list[int]] = {}
        after = self.position.copy()
        for row in np.flatnonzero(self.verdicts.passed).tolist():
            start = int(self.position[row])
            try:
                found[row] = item_places(avro_type, self._buffer.data, start, int(self._end[row]), name)
                after[row] = found[row].end
            except MalformedError as error:
                problems.setdefault((error.reason, str(error)), []).append(row)
        for (reason, detail), rows in problems.items():
            bad = np.zeros(len(after), np.bool_)
            bad[rows] = True
            self.verdicts.fail(bad, reason, detail)
        self.position = after
        lengths = np.fromiter((len(each.items) for each in found), np.int64, len(found))
        rows_of = np.repeat(np.arange(len(found)), lengths)
        keys: Spans | None = None
        member = avro_type.get("items")
        if member is None:
            member = avro_type["values"]
            places = np.array([place for each in found for place in each.keys], np.int64)
            read = self._part(rows_of, places).read("string", name)
            assert isinstance(read, Spans)
            keys = read
        places = np.array([place for each in found for place in each.items], np.int64)
        items = self._part(rows_of, places).read(member, name)
        return Items(lengths, items, keys)

    def _part(self, rows: Ints, positions: Ints) -> "Cursor":
        """Make a cursor over values at these positions, each in one of some records."""
        values = Spans(self._buffer, positions, self._end[rows] - positions)
        return Cursor(values, PartVerdicts(self.verdicts, rows))

    def _booleans(self, name: str) -> Mask:
        value = self._fixed(1, "u1", name)
        self.verdicts.fail(value > 1, Reason.MALFORMED, f"{name}: a boolean is 0 or 1")
        return value.astype(np.bool_)

    def _spans(self, name: str) -> Spans:
        length = self._longs(name)
        negative, beyond = length < 0, length > self._end - self.position
        self.verdicts.fail(negative, Reason.MALFORMED, f"{name}: negative length")
        self.verdicts.fail(beyond, Reason.TRUNCATED, f"{name}: the record ends inside it")
        length[negative | beyond] = 0
        start = self.position
        self.position = start + length
        return Spans(self._buffer, start, length)

    def _fixed(self, width: int, dtype: str, name: str) -> NDArray[Any]:
        value = self._buffer.gather(self.position, width, dtype)
        self._advance(width, name)
        return value

    def _advance(self, length: Ints | int, name: str) -> None:
        after = self.position + length
        self.verdicts.fail(after > self._end, Reason.TRUNCATED, f"{name}: the record ends inside it")
        self.position = np.minimum(after, self._end)
