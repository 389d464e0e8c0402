"""Reads Avro fields of many records at once: one position per record, each step a numpy operation.

The encoding is Avro's binary one, in canonical form only: shortest varints, booleans 0 or 1. So each value has one
encoding, and encoding it again gives the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Ints, Mask, Verdicts
from pipeline.errors import Reason

_U64 = np.uint64
_CONTINUE = _U64(0x8080808080808080)
_SEVEN = _U64(0x7F)
_ONE = _U64(1)
# Masks and shifts that close the one-bit gaps between 7-bit groups: 8 bytes become 4 x 14, 2 x 28, then 1 x 56 bits.
_SQUEEZE = (
    (_U64(0x007F007F007F007F), _U64(0x7F007F007F007F00), _ONE),
    (_U64(0x00003FFF00003FFF), _U64(0x3FFF00003FFF0000), _U64(2)),
    (_U64(0x000000000FFFFFFF), _U64(0x0FFFFFFF00000000), _U64(4)),
)
_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True, slots=True)
class Spans:
    """A span of bytes per record: its start in the buffer, and its length."""

    starts: Ints
    lengths: Ints

    def __getitem__(self, rows: Mask | Ints | slice) -> "Spans":
        return Spans(self.starts[rows], self.lengths[rows])

    def without(self, count: int) -> "Spans":
        """Drop the first `count` bytes of each span."""
        return Spans(self.starts + count, self.lengths - count)


Raw = NDArray[Any] | Spans
"""A field of many records before validation: numbers or booleans, or the spans of its bytes."""


class ValueBuffer:
    """The values of a micro-batch, one after the other, padded so that reads may reach beyond both ends."""

    MARGIN = 64
    """Padding at each end, in bytes: reads reach no further."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._data = b"".join([bytes(self.MARGIN), *pieces, bytes(self.MARGIN)])
        lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
        self.pieces = Spans(np.cumsum(lengths) - lengths + self.MARGIN, lengths)

    def gather(self, positions: Ints, width: int, dtype: str | None = None) -> NDArray[Any]:
        """Read `width` bytes from each position, as raw bytes (V<width>) or as `dtype`."""
        # A view of all overlapping slices of the data: this copies `width` bytes a record, without index arithmetic.
        count = len(self._data) - width + 1
        every: NDArray[Any] = np.ndarray((count,), np.dtype(dtype or f"V{width}"), buffer=self._data, strides=(1,))
        return every[positions]

    def slices(self, spans: Spans) -> list[bytes]:
        """Copy the bytes of each span."""
        data = self._data
        stops = (spans.starts + spans.lengths).tolist()
        return [data[start:stop] for start, stop in zip(spans.starts.tolist(), stops, strict=True)]


class Cursor:
    """A position in each of n records; reading a field advances it. A rejected record is carried along and ignored.

    Args:
        buffer: holds the records.
        records: spans of the records' bodies, without framing.
    """

    def __init__(self, buffer: ValueBuffer, records: Spans) -> None:
        self.verdicts = Verdicts(len(records.starts))
        self._buffer = buffer
        self._position = records.starts
        self._end = records.starts + records.lengths

    def read(self, avro_type: str, name: str) -> Raw:
        """Read the next field of every record: int64, float32, float64 or bool, or spans of strings and bytes."""
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
        return self._spans(name)

    def finish(self) -> None:
        """Reject each record that has bytes after its last field."""
        self.verdicts.fail(self._position != self._end, Reason.TRAILING_BYTES, "bytes after the last field")

    def _longs(self, name: str) -> Ints:
        value, length, malformed = self._varints()
        self._advance(length, name)
        self.verdicts.fail(malformed, Reason.MALFORMED, f"{name}: not a canonical varint of at most 64 bits")
        return (value >> _ONE).view(np.int64) ^ -(value & _ONE).view(np.int64)

    def _ints(self, name: str) -> Ints:
        value = self._longs(name)
        self.verdicts.fail((value < _INT_MIN) | (value > _INT_MAX), Reason.MALFORMED, f"{name}: wider than 32 bits")
        return value

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
        return Spans(start, length)

    def _fixed(self, width: int, dtype: str, name: str) -> NDArray[Any]:
        value = self._buffer.gather(self._position, width, dtype)
        self._advance(width, name)
        return value

    def _advance(self, length: Ints | int, name: str) -> None:
        after = self._position + length
        self.verdicts.fail(after > self._end, Reason.TRUNCATED, f"{name}: the record ends inside it")
        self._position = np.minimum(after, self._end)

    def _varints(self) -> tuple[NDArray[np.uint64], Ints, Mask]:
        """Read the varint at each position: unsigned value, number of bytes, and true if it is malformed."""
        words = self._buffer.gather(self._position, 8, "<u8")
        stops = ~words & _CONTINUE
        if (stops & _U64(0x80)).all():  # each value fits one byte, as most lengths and small numbers do
            return words & _SEVEN, np.ones(len(words), np.int64), np.zeros(len(words), np.bool_)
        # The lowest clear continuation bit marks the last byte; if 8 bytes have none, the varint is longer.
        last = stops & (~stops + _ONE)
        below = last - _ONE
        value = words & (last | below) & ~_CONTINUE
        for keep, move, shift in _SQUEEZE:
            value = (value & keep) | ((value & move) >> shift)
        length = (np.bitwise_count(below).astype(np.int64) + 1) >> 3
        malformed = (length > 1) & (value >> (_U64(7) * (length - 1).view(np.uint64)) == 0)
        long = np.flatnonzero(last == 0)
        if long.size:
            self._complete(long, value, length, malformed)
        return value, length, malformed

    def _complete(self, rows: Ints, value: NDArray[np.uint64], length: Ints, malformed: Mask) -> None:
        """Complete the varints of nine and ten bytes in place; a tenth byte must be 1."""
        ninth = self._buffer.gather(self._position[rows] + 8, 1, "u1").astype(np.uint64)
        tenth = self._buffer.gather(self._position[rows] + 9, 1, "u1").astype(np.uint64)
        ten = ninth > _SEVEN
        value[rows] |= (ninth & _SEVEN) << _U64(56) | np.where(ten, tenth << _U64(63), _U64(0))
        length[rows] = np.where(ten, 10, 9)
        malformed[rows] = np.where(ten, tenth != 1, ninth == 0)
