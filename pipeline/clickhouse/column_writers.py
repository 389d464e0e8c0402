"""Writers of columns for the native protocol: each type as the server's `serializeBinaryBulk` methods lay it out."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np

from pipeline.columns import WIDE, Column, DictionaryColumn, ItemsColumn, NullableColumn
from pipeline.columns.core import compiled


class OutputBuffer(Protocol):
    """The methods of the driver's buffered writers that this module calls."""

    def write(self, data: bytes) -> None: ...  # noqa: D102 (the driver's method)
    def write_strings(self, items: Sequence[bytes]) -> None: ...  # noqa: D102 (the driver's method)


Write = Callable[[OutputBuffer, Any], None]


@dataclass(frozen=True, slots=True)
class ColumnWriter:
    """Writes the values of one column."""

    write: Write
    prefix: bytes = b""
    """Bytes before the values; those of a type within another one come first of all."""

    def __call__(self, buffer: OutputBuffer, column: Column) -> None:
        """Write a whole column of a block."""
        if self.prefix:
            buffer.write(self.prefix)
        self.write(buffer, column)


_NUMBERS = {
    **{f"Int{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    "Float32": "<f4",
    "Float64": "<f8",
    "Bool": "u1",
    "DateTime": "<u4",
    "Date": "<u2",
    "Date32": "<i4",
}
_DICTIONARY_VERSION = np.array([1], "<i8").tobytes()
_DICTIONARY_FLAGS = 1 << 9 | 1 << 10  # additional keys follow; they replace the dictionary of the block before
_INDEX_TYPES = {1: 0, 2: 1, 4: 2}  # bytes of an index to the server's number of its type


@cache
def writer(type_name: str) -> ColumnWriter:
    """Return the writer for a ClickHouse type.

    Raises:
        TypeError: there is none.
    """
    for pattern, writer_of in _WRITERS:
        if match := re.fullmatch(pattern, type_name):
            return writer_of(match)
    raise TypeError(f"no writer for a column of type {type_name}")


def _plain(write: Write) -> Callable[[re.Match[str]], ColumnWriter]:
    return lambda _: ColumnWriter(write)


def _numbers(dtype: str) -> ColumnWriter:
    def write(buffer: OutputBuffer, column: np.ndarray[Any, Any]) -> None:
        buffer.write(column.astype(dtype, copy=False).tobytes())

    return ColumnWriter(write)


def _write_wide(buffer: OutputBuffer, column: np.ndarray[Any, Any]) -> None:
    """Write numbers of 128 bits; a field of fewer digits gives those of 64 bits."""
    if column.dtype != WIDE:
        wide = np.empty(len(column), WIDE)
        wide["low"], wide["high"] = column.astype(np.int64).view(np.uint64), column >> 63
        column = wide
    buffer.write(column.tobytes())


def _fixed_strings(match: re.Match[str]) -> ColumnWriter:
    width = int(match[1])

    def write(buffer: OutputBuffer, column: Column) -> None:
        if isinstance(column, np.ndarray) and column.dtype.itemsize == width:
            buffer.write(column.tobytes())
            return
        buffer.write(b"".join(value.ljust(width, b"\0") for value in _texts(column)))

    return ColumnWriter(write)


def _texts(column: Any) -> Sequence[bytes]:
    if isinstance(column, DictionaryColumn):
        return column.to_list()
    texts: Sequence[bytes] = column.tolist() if isinstance(column, np.ndarray) else column
    return texts


def _write_uuids(buffer: OutputBuffer, column: np.ndarray[Any, Any]) -> None:
    """Write each UUID as two little-endian 64-bit numbers, the more significant one first."""
    buffer.write(column.view(">u8").astype("<u8").tobytes())


def _write_strings(buffer: OutputBuffer, column: Column) -> None:
    """Write each string behind its length."""
    core = compiled()
    if core is not None and isinstance(column, DictionaryColumn):
        buffer.write(core.strings(column.values, column.codes))
    else:
        buffer.write_strings(_texts(column))


def _write_dictionary(buffer: OutputBuffer, column: Column) -> None:
    """Write the distinct values, then an index for each row; nothing for no rows, as the server does it."""
    if not len(column):
        return
    encoded = column if isinstance(column, DictionaryColumn) else DictionaryColumn.encode(_texts(column))
    codes = encoded.codes.astype(np.min_scalar_type(len(encoded.values)))
    flags = _DICTIONARY_FLAGS | _INDEX_TYPES[codes.dtype.itemsize]
    buffer.write(np.array([flags, len(encoded.values)], "<i8").tobytes())
    buffer.write_strings(encoded.values)
    buffer.write(np.array([len(codes)], "<i8").tobytes())
    buffer.write(codes.tobytes())


def _write_nullable_dictionary(buffer: OutputBuffer, column: Column) -> None:
    """Write a dictionary whose first value stands for null."""
    values, present = _split(column)
    encoded = values if isinstance(values, DictionaryColumn) else DictionaryColumn.encode(_texts(values))
    codes = np.where(present, encoded.codes + np.uint32(1), np.uint32(0)).astype(np.uint32)
    _write_dictionary(buffer, DictionaryColumn(codes, [b"", *encoded.values]))


def _nullable(match: re.Match[str]) -> ColumnWriter:
    inner = writer(match[1])

    def write(buffer: OutputBuffer, column: Column) -> None:
        values, present = _split(column)
        buffer.write((~present).astype(np.uint8).tobytes())
        inner.write(buffer, values)

    return ColumnWriter(write, inner.prefix)


def _split(column: Column) -> tuple[Column, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return the values, and true for each row that has one; a field that is never null may fill a nullable column."""
    if isinstance(column, NullableColumn):
        return column.values, column.present
    return column, np.ones(len(column), np.bool_)


def _array(match: re.Match[str]) -> ColumnWriter:
    inner = writer(match[1])

    def write(buffer: OutputBuffer, column: ItemsColumn) -> None:
        buffer.write(np.cumsum(column.lengths).astype("<u8").tobytes())
        inner.write(buffer, column.items)

    return ColumnWriter(write, inner.prefix)


def _map(match: re.Match[str]) -> ColumnWriter:
    keys, values = writer(match[1]), writer(match[2])

    def write(buffer: OutputBuffer, column: ItemsColumn) -> None:
        buffer.write(np.cumsum(column.lengths).astype("<u8").tobytes())
        keys.write(buffer, column.keys)
        values.write(buffer, column.items)

    return ColumnWriter(write, keys.prefix + values.prefix)


_WRITERS: tuple[tuple[str, Callable[[re.Match[str]], ColumnWriter]], ...] = (
    ("|".join(_NUMBERS), lambda match: _numbers(_NUMBERS[match[0]])),
    (r"DateTime64\(.*\)", lambda _: _numbers("<i8")),
    (r"Decimal\([1-9], ?\d+\)", lambda _: _numbers("<i4")),
    (r"Decimal\(1[0-8], ?\d+\)", lambda _: _numbers("<i8")),
    (r"Decimal\((?:19|2\d|3[0-8]), ?\d+\)", _plain(_write_wide)),
    (r"FixedString\((\d+)\)", _fixed_strings),
    (r"String", _plain(_write_strings)),
    (r"UUID", _plain(_write_uuids)),
    (r"LowCardinality\(String\)", lambda _: ColumnWriter(_write_dictionary, _DICTIONARY_VERSION)),
    (
        r"LowCardinality\(Nullable\(String\)\)",
        lambda _: ColumnWriter(_write_nullable_dictionary, _DICTIONARY_VERSION),
    ),
    (r"Nullable\((.*)\)", _nullable),
    (r"Array\((.*)\)", _array),
    (r"Map\(((?:LowCardinality\()?String\)?), ?(.*)\)", _map),
)
"""Pattern of a type's name, and the function that makes a writer from its match."""
