"""Records of one partition by column: offsets, timestamps, and spans of one buffer for keys, values and headers.

`RecordColumns` is a sequence of records, for the few places that look at a single one. Columns serve all others.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, overload

import numpy as np

from pipeline.columns import Ints, Spans

_LAST_SHIFT = 63  # of the tenth byte

Headers = Sequence[tuple[str, bytes | None]]


class Record(Protocol):
    """Kafka record, as any client returns it."""

    @property
    def offset(self) -> int: ...  # noqa: D102 (Kafka's meaning, as all below)
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Headers: ...  # noqa: D102


class ColumnRecord(NamedTuple):
    """One record of several columns."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class LogPart(Protocol):
    """Consecutive records of one partition, by ascending offset; there may be offsets without a record in between."""

    @property
    def first_offset(self) -> int: ...  # noqa: D102 (of the first record)
    @property
    def last_offset(self) -> int: ...  # noqa: D102 (of the last record)
    @property
    def newest(self) -> int:
        """Timestamp of the last record, or a later one of the same batch; ms."""
        ...

    @property
    def size(self) -> int:
        """Bytes that the records take when they are read, about."""
        ...

    @property
    def held_bytes(self) -> int:
        """Bytes that this part takes in memory."""
        ...

    def __len__(self) -> int: ...  # the number of records

    def sliced(self, first: int, stop: int) -> "LogPart":
        """Return some of the records, by their numbers."""
        ...

    def rows_below(self, offset: int) -> int:
        """Count the records below an offset."""
        ...

    def rows_within(self, max_bytes: int) -> int:
        """Count the first records that fit into this size, about."""
        ...

    def columns(self) -> "RecordColumns":
        """Read the records."""
        ...


@dataclass(frozen=True, slots=True)
class RecordColumns(Sequence[ColumnRecord]):
    """Records by column, by ascending offset."""

    offsets: Ints
    timestamps: Ints
    """Kafka's timestamps, ms."""
    keys: Spans
    values: Spans
    headers: Spans
    """Headers in Kafka's encoding: their number, then name and value of each."""

    @classmethod
    def of(cls, records: Sequence[Record]) -> "RecordColumns":
        """Lay records out that a client has read."""
        return cls(
            np.fromiter((record.offset for record in records), np.int64, len(records)),
            np.fromiter((record.timestamp for record in records), np.int64, len(records)),
            Spans.of([record.key for record in records]),
            Spans.of([record.value for record in records]),
            Spans.of([b"".join(_encoded(record.headers)) if record.headers else b"\0" for record in records]),
        )

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, at: int) -> ColumnRecord: ...
    @overload
    def __getitem__(self, at: slice) -> "RecordColumns": ...
    def __getitem__(self, at: int | slice) -> "ColumnRecord | RecordColumns":
        if isinstance(at, slice):
            return RecordColumns(
                self.offsets[at], self.timestamps[at], self.keys[at], self.values[at], self.headers[at]
            )
        headers = tuple(decoded_headers(self.headers.at(at) or b"\0"))
        return ColumnRecord(
            int(self.offsets[at]), int(self.timestamps[at]), self.keys.at(at), self.values.at(at), headers
        )

    def __iter__(self) -> Iterator[ColumnRecord]:
        return map(self.__getitem__, range(len(self)))

    @property
    def first_offset(self) -> int:
        """Offset of the first record."""
        return int(self.offsets[0])

    @property
    def last_offset(self) -> int:
        """Offset of the last record."""
        return int(self.offsets[-1])

    @property
    def newest(self) -> int:
        """Timestamp of the last record, ms."""
        return int(self.timestamps[-1])

    @property
    def sizes(self) -> Ints:
        """Bytes of each record's key, value and headers."""
        keys, values = np.maximum(self.keys.lengths, 0), np.maximum(self.values.lengths, 0)
        sizes: Ints = keys + values + self.headers.lengths - 1  # one byte says that there are no headers
        return sizes

    @property
    def size(self) -> int:
        """Bytes of all keys, values and headers."""
        return int(self.sizes.sum())

    @property
    def held_bytes(self) -> int:
        """Bytes of all keys, values and headers."""
        return self.size

    def sliced(self, first: int, stop: int) -> "RecordColumns":
        """Return some of the records, by their numbers."""
        return self[first:stop]

    def rows_below(self, offset: int) -> int:
        """Count the records below an offset."""
        return int(np.searchsorted(self.offsets, offset))

    def rows_within(self, max_bytes: int) -> int:
        """Count the first records that fit into this size."""
        return int(np.searchsorted(np.cumsum(self.sizes), max_bytes, side="right"))

    def columns(self) -> "RecordColumns":
        """Return the records."""
        return self


def decoded_headers(encoded: bytes) -> Iterator[tuple[str, bytes | None]]:
    """Yield name and value of each header; bytes of a name that aren't UTF-8, which Kafka accepts, are escaped.

    Args:
        encoded: headers in Kafka's encoding, which were checked.
    """
    count, at = varint_at(encoded, 0)
    for _ in range(count):
        length, at = varint_at(encoded, at)
        name, at = encoded[at : at + length].decode(errors="backslashreplace"), at + length
        length, at = varint_at(encoded, at)
        value = None if length < 0 else encoded[at : at + length]
        at += max(length, 0)
        yield name, value


def varint_at(data: bytes, at: int) -> tuple[int, int]:
    """Read one of Kafka's signed numbers, of at most ten bytes; return it and the position after it."""
    number = shift = 0
    while data[at] > 0x7F and shift < _LAST_SHIFT:
        number |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    number |= data[at] << shift
    return (number >> 1) ^ -(number & 1), at + 1


def _encoded(headers: Headers) -> Iterable[bytes]:
    yield _as_varint(len(headers))
    for name, value in headers:
        encoded = name.encode(errors="surrogateescape")
        yield _as_varint(len(encoded))
        yield encoded
        yield _as_varint(-1 if value is None else len(value))
        yield value or b""


def _as_varint(number: int) -> bytes:
    left, octets = (number << 1) ^ (number >> 63), bytearray()
    while left > 0x7F:
        octets.append(left & 0x7F | 0x80)
        left >>= 7
    octets.append(left)
    return bytes(octets)
