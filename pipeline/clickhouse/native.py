"""Writes columns as a block of ClickHouse's native format, straight from numpy arrays.

The driver's own writers take one Python object a value; a micro-batch has arrays already. The layout of each type is
that of the server's `serializeBinaryBulk` methods, which the driver's own columns follow too.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np
from clickhouse_driver.varint import write_varint
from clickhouse_driver.writer import write_binary_str, write_binary_uint8

from pipeline.columns import Column, DictionaryColumn


class Buffer(Protocol):
    """What is written to: the driver's buffered writers."""

    def write(self, data: bytes) -> None: ...  # noqa: D102
    def write_strings(self, items: Sequence[bytes]) -> None: ...  # noqa: D102


Writer = Callable[[Buffer, Any], None]

_NUMBERS = {
    **{f"Int{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    "Float32": "<f4",
    "Float64": "<f8",
    "Bool": "u1",
    "DateTime": "<u4",
    "Date": "<u2",
}
_DICTIONARY_VERSION = 1
_DICTIONARY_FLAGS = 1 << 9 | 1 << 10  # additional keys follow; they replace the dictionary of the block before
_INDEX_TYPES = {1: 0, 2: 1, 4: 2}  # bytes of an index to the server's number of its type


def write_block(buffer: Buffer, types: Sequence[tuple[str, str]], columns: Mapping[str, Column]) -> None:
    """Write the columns of one block.

    Args:
        buffer: the driver's.
        types: name and ClickHouse type of each column, in the order of the INSERT.
        columns: by name, all of one length, in the forms of `pipeline.columns.Column`.

    Raises:
        TypeError: a type that has no writer.
    """
    write_varint(len(types), buffer)
    write_varint(len(columns[types[0][0]]), buffer)
    for name, type_name in types:
        write_binary_str(name, buffer)
        write_binary_str(type_name, buffer)
        write_binary_uint8(0, buffer)  # not a sparse column
        _writer(type_name)(buffer, columns[name])


@cache
def _writer(type_name: str) -> Writer:
    for pattern, writer_of in _WRITERS:
        if match := re.fullmatch(pattern, type_name):
            return writer_of(match)
    raise TypeError(f"no writer for a column of type {type_name}")


def _numbers(dtype: str) -> Writer:
    def write(buffer: Buffer, column: np.ndarray[Any, Any]) -> None:
        buffer.write(column.astype(dtype, copy=False).tobytes())

    return write


def _fixed_strings(width: int) -> Writer:
    def write(buffer: Buffer, column: Column) -> None:
        if isinstance(column, np.ndarray) and column.dtype.itemsize == width:
            buffer.write(column.tobytes())
            return
        values = column.to_list() if isinstance(column, DictionaryColumn) else list(column)
        buffer.write(b"".join(value.ljust(width, b"\0") for value in values))

    return write


def _write_uuids(buffer: Buffer, column: np.ndarray[Any, Any]) -> None:
    """Two little-endian 64-bit numbers, the more significant one first."""
    buffer.write(column.view(">u8").astype("<u8").tobytes())


def _write_strings(buffer: Buffer, column: Column) -> None:
    buffer.write_strings(column.to_list() if isinstance(column, DictionaryColumn) else column)  # type: ignore[arg-type]


def _write_dictionary(buffer: Buffer, column: Column) -> None:
    """The distinct values, then an index for each row."""
    coded = column if isinstance(column, DictionaryColumn) else _coded(column)  # type: ignore[arg-type]
    codes = coded.codes.astype(np.min_scalar_type(len(coded.values)))
    flags = _DICTIONARY_FLAGS | _INDEX_TYPES[codes.dtype.itemsize]
    buffer.write(np.array([_DICTIONARY_VERSION, flags, len(coded.values)], "<i8").tobytes())
    buffer.write_strings(coded.values)
    buffer.write(np.array([len(codes)], "<i8").tobytes())
    buffer.write(codes.tobytes())


def _coded(values: Sequence[bytes]) -> DictionaryColumn:
    code_of = {value: code for code, value in enumerate(dict.fromkeys(values))}
    return DictionaryColumn(np.fromiter(map(code_of.__getitem__, values), np.uint32, len(values)), list(code_of))


_WRITERS: tuple[tuple[str, Callable[[re.Match[str]], Writer]], ...] = (
    ("|".join(_NUMBERS), lambda match: _numbers(_NUMBERS[match[0]])),
    (r"DateTime64\(.*\)", lambda _: _numbers("<i8")),
    (r"Decimal\([1-9], ?\d+\)", lambda _: _numbers("<i4")),
    (r"Decimal\(1[0-8], ?\d+\)", lambda _: _numbers("<i8")),
    (r"FixedString\((\d+)\)", lambda match: _fixed_strings(int(match[1]))),
    (r"String", lambda _: _write_strings),
    (r"UUID", lambda _: _write_uuids),
    (r"LowCardinality\(String\)", lambda _: _write_dictionary),
)
"""Pattern of a type's name, and what makes its writer."""
