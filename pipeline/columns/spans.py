"""Spans of one buffer: the bytes of many values, read by column, without an object around each value."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns.rows import DictionaryColumn, Ints, Mask

_SAMPLE = 256  # values that tell whether there are many distinct ones
_FEW = 32


def bytes_written(size: int, write: Callable[[memoryview], object]) -> bytes:
    """Return bytes that a function writes in place, zeros where it writes none: nothing is copied.

    Args:
        size: number of the bytes; for none, the function isn't called.
        write: gets room for them, and keeps no view of it.
    """
    if not size:
        return b""
    file = BytesIO()  # its buffer becomes bytes without a copy
    file.seek(size - 1)
    file.write(b"\0")
    with file.getbuffer() as room:
        write(room)
    return file.getvalue()


def split_at(data: bytes, stops: Sequence[int]) -> list[bytes]:
    """Copy the pieces of some bytes; the first begins at 0, and each other one where the one before it stops."""
    return [data[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


class ByteBuffer:
    """Bytes of many values, padded so that reads may reach beyond both ends.

    Args:
        pieces: the bytes, in their order.
    """

    MARGIN = 64
    """Padding at each end, in bytes: reads reach no further."""

    __slots__ = ("data",)

    def __init__(self, pieces: Iterable[Any]) -> None:
        self.data: bytes = b"".join([bytes(self.MARGIN), *pieces, bytes(self.MARGIN)])

    @classmethod
    def written(cls, size: int, write: Callable[[memoryview], object]) -> "ByteBuffer":
        """Return a buffer of `size` bytes that a function writes in place; see `bytes_written`."""
        buffer = cls(())
        stop = size + cls.MARGIN
        buffer.data = bytes_written(stop + cls.MARGIN, lambda room: write(room[cls.MARGIN : stop]))
        return buffer

    def gather(self, positions: Ints, width: int, dtype: str | None = None) -> NDArray[Any]:
        """Read `width` bytes from each position, as raw bytes (V<width>) or as `dtype`."""
        # A view of all overlapping slices of the data: this copies `width` bytes a value, without index arithmetic.
        count = len(self.data) - width + 1
        every: NDArray[Any] = np.ndarray((count,), np.dtype(dtype or f"V{width}"), buffer=self.data, strides=(1,))
        return every[positions]


@dataclass(frozen=True, slots=True)
class Spans:
    """A span of bytes per value: its start in the buffer, and its length."""

    buffer: ByteBuffer
    starts: Ints
    lengths: Ints
    """Bytes of each value; below 0 for null."""

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> "Spans":
        """Lay values out in a new buffer."""
        lengths = np.fromiter((-1 if value is None else len(value) for value in values), np.int64, len(values))
        return cls.consecutive((value for value in values if value), lengths)

    @classmethod
    def concatenate(cls, parts: Sequence["Spans"]) -> "Spans":
        """Lay the values of several parts out in one buffer, in their order."""
        if len(parts) == 1:
            return parts[0]
        nothing = np.zeros(0, np.int64)
        lengths = np.concatenate([nothing, *(part.lengths for part in parts)])
        return cls.consecutive(map(Spans.joined, parts), lengths)

    @classmethod
    def consecutive(cls, pieces: Iterable[bytes], lengths: Ints) -> "Spans":
        """Return values that lie one after the other in these pieces, in a buffer that has nothing else."""
        return cls(ByteBuffer(pieces), _starts(lengths), lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, rows: Mask | Ints | slice) -> "Spans":
        return Spans(self.buffer, self.starts[rows], self.lengths[rows])

    @property
    def stops(self) -> Ints:
        """Position after each value; a null takes no bytes."""
        stops: Ints = self.starts + np.maximum(self.lengths, 0)
        return stops

    def without(self, count: int) -> "Spans":
        """Drop the first `count` bytes of each value."""
        return Spans(self.buffer, self.starts + count, self.lengths - count)

    def at(self, row: int) -> bytes | None:
        """Copy the bytes of one value."""
        start, length = int(self.starts[row]), int(self.lengths[row])
        return None if length < 0 else self.buffer.data[start : start + length]

    def values(self) -> list[bytes]:
        """Copy the bytes of each value; none of a null."""
        data = self.buffer.data
        return [data[start:stop] for start, stop in zip(self.starts.tolist(), self.stops.tolist(), strict=True)]

    def codes_of(self, values: Sequence[bytes]) -> tuple[NDArray[np.uint32], Mask]:
        """Return the index of each row's value among these, and true for each row that has one of them."""
        codes, found = np.zeros(len(self), np.uint32), np.zeros(len(self), np.bool_)
        for code, value in enumerate(values):
            rows = np.flatnonzero(self.lengths == len(value))
            if value:
                rows = rows[self.buffer.gather(self.starts[rows], len(value)) == np.void(value)]
            codes[rows], found[rows] = code, True
        return codes, found

    def encoded(self) -> DictionaryColumn:
        """Encode values without a null as a dictionary, in the order in which the distinct ones appear."""
        first = DictionaryColumn.encode(self[:_SAMPLE].values())
        if len(self) <= _SAMPLE:
            return first
        if len(first.values) > _FEW:
            return DictionaryColumn.encode(self.values())
        # Few values, as user agents are: the rows are compared with each, and only other values are copied.
        codes, found = self.codes_of(first.values)
        others = DictionaryColumn.encode(self[~found].values())
        codes[~found] = others.codes + np.uint32(len(first.values))
        return DictionaryColumn(codes, [*first.values, *others.values])

    def copied(self) -> "Spans":
        """Copy the values into a buffer that has nothing else."""
        return Spans.consecutive([self.joined()], self.lengths.copy())

    def joined(self) -> bytes:
        """Copy the bytes of all values, one after the other."""
        if not len(self):
            return b""
        stops = self.stops
        if (self.starts[1:] == stops[:-1]).all():  # they lie so in the buffer
            return self.buffer.data[int(self.starts[0]) : int(stops[-1])]
        width = int(self.lengths[0])
        if width > 0 and (self.lengths == width).all():
            return self.buffer.gather(self.starts, width).tobytes()
        return b"".join(self.values())


def _starts(lengths: Ints) -> Ints:
    taken = np.maximum(lengths, 0)
    starts: Ints = np.cumsum(taken) - taken + ByteBuffer.MARGIN
    return starts


_U64 = np.uint64
_CONTINUE = _U64(0x8080808080808080)
_SEVEN = _U64(0x7F)
_ONE = _U64(1)
_TWO_STOPS, _SECOND = _U64(0x8080), _U64(0x3F80)
# Masks and shifts that close the one-bit gaps between 7-bit groups: 8 bytes become 4 x 14, 2 x 28, then 1 x 56 bits.
_SQUEEZE = (
    (_U64(0x007F007F007F007F), _U64(0x7F007F007F007F00), _ONE),
    (_U64(0x00003FFF00003FFF), _U64(0x3FFF00003FFF0000), _U64(2)),
    (_U64(0x000000000FFFFFFF), _U64(0x0FFFFFFF00000000), _U64(4)),
)


def varints(buffer: ByteBuffer, positions: Ints) -> tuple[NDArray[np.uint64], Ints, Mask]:
    """Read the varint at each position, before zigzag.

    Returns:
        Unsigned value; number of bytes; and true if it isn't the shortest form of a number of at most 64 bits. If such
        a one has ten bytes, its value is wrong, and more bytes may belong to it.
    """
    words = buffer.gather(positions, 8, "<u8")
    stops = ~words & _CONTINUE
    if (stops & _U64(0x80)).all():  # each value fits one byte, as most lengths and small numbers do
        return words & _SEVEN, np.ones(len(words), np.int64), np.zeros(len(words), np.bool_)
    if (stops & _TWO_STOPS).all():  # or two, as most other lengths do
        two = stops & _U64(0x80) == 0
        first, both = words & _SEVEN, (words & _SEVEN) | ((words >> _ONE) & _SECOND)
        return np.where(two, both, first), 1 + two.astype(np.int64), two & (both == first)
    # The lowest clear continuation bit marks the last byte; if 8 bytes have none, the varint is longer.
    last = stops & (~stops + _ONE)
    below = last - _ONE
    value = words & (last | below) & ~_CONTINUE
    for keep, move, shift in _SQUEEZE:
        value = (value & keep) | ((value & move) >> shift)
    length = (np.bitwise_count(below).astype(np.int64) + 1) >> 3
    malformed = (length > 1) & (value >> (_U64(7) * (length - 1).view(np.uint64)) == 0)
    long = np.flatnonzero(last == 0)
    if long.size:  # nine or ten bytes; a tenth one must be 1
        ninth = buffer.gather(positions[long] + 8, 1, "u1").astype(np.uint64)
        tenth = buffer.gather(positions[long] + 9, 1, "u1").astype(np.uint64)
        ten = ninth > _SEVEN
        value[long] |= (ninth & _SEVEN) << _U64(56) | np.where(ten, tenth << _U64(63), _U64(0))
        length[long] = np.where(ten, 10, 9)
        malformed[long] = np.where(ten, tenth != 1, ninth == 0)
    return value, length, malformed


def zigzag(values: NDArray[np.uint64]) -> Ints:
    """Return the signed numbers that these varints stand for."""
    signed: Ints = (values >> _ONE).view(np.int64) ^ -(values & _ONE).view(np.int64)
    return signed
