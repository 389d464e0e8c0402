"""Inserts of numpy columns over ClickHouse's native protocol.

The driver's own writers take one Python object per value; a micro-batch already has arrays. Each type is laid out as
the server's `serializeBinaryBulk` methods do it, and as the driver's own columns do.

No other module uses undocumented parts of clickhouse-driver; `insert_block` and `write_block` have all of them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np
from clickhouse_driver import Client
from clickhouse_driver.block import BlockInfo, ColumnOrientedBlock
from clickhouse_driver.errors import UnexpectedPacketFromServerError
from clickhouse_driver.log import log_block
from clickhouse_driver.protocol import ClientPacketTypes, ServerPacketTypes
from clickhouse_driver.varint import write_varint
from clickhouse_driver.writer import write_binary_str, write_binary_uint8

from pipeline.clickhouse.live_columns import LiveColumn, parse_columns
from pipeline.columns import Column, DictionaryColumn


class OutputBuffer(Protocol):
    """The methods of the driver's buffered writers that this module calls."""

    def write(self, data: bytes) -> None: ...  # noqa: D102 (the driver's method)
    def write_strings(self, items: Sequence[bytes]) -> None: ...  # noqa: D102 (the driver's method)


Writer = Callable[[OutputBuffer, Any], None]
"""Writes the values of one column."""

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


def insert_block(
    client: Client,
    query: str,
    columns: Mapping[str, Column],
    settings: Mapping[str, Any] | None = None,
    *,
    query_id: str | None = None,
    check: Callable[[], None] = lambda: None,
    check_columns: Callable[[Mapping[str, LiveColumn]], None] = lambda _: None,
) -> None:
    """Insert columns as one block; return when the server has answered.

    Does what the driver's `Client.execute` does for an INSERT, but writes the block from arrays. A failure disconnects.

    Args:
        client: no other thread uses it meanwhile.
        query: an INSERT without its rows.
        columns: columns by name, all of one length, at least one row.
        settings: settings of this query.
        query_id: id of this query; the server makes one when None.
        check: called when the server waits for the rows. Its exception ends the insert with nothing stored.
        check_columns: called before that with the table's columns, as the server gives them in its answer to the query:
            all columns of the table, or only those of the query. Its exception ends the insert with nothing stored.

    Raises:
        TypeError: no writer for the type of a column.
        clickhouse_driver.errors.Error, OSError, EOFError: the insert failed.
    """
    with client.disconnect_on_error(query, settings):
        connection = client.connection
        connection.send_query(query, query_id=query_id)
        connection.send_external_tables(None)
        types, table = _receive_columns(client)
        check_columns(table)
        check()
        _send_block(connection, types, columns)
        client.receive_profile_events()
        connection.send_data(ColumnOrientedBlock())  # an empty block ends the data
        client.receive_profile_events()
        client.receive_end_of_insert_query()


def _send_block(connection: Any, types: Sequence[tuple[str, str]], columns: Mapping[str, Column]) -> None:
    write_varint(ClientPacketTypes.DATA, connection.fout)
    write_binary_str("", connection.fout)
    BlockInfo().write(connection.block_out.fout)
    write_block(connection.block_out.fout, types, columns)
    connection.block_out.finalize()


def _receive_columns(client: Client) -> tuple[list[tuple[str, str]], Mapping[str, LiveColumn]]:
    """Receive the answer to an INSERT; return types of its columns in their order, and the columns of the table.

    Does what the driver's `Client.receive_sample_block` does, but keeps the description of the table. A server sends
    none where `input_format_defaults_for_omitted_fields` is off; then the columns of the INSERT stand for it.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: the server refuses the query, or doesn't answer.
    """
    table: Mapping[str, LiveColumn] = {}
    while True:
        packet = client.connection.receive_packet()
        match packet.type:
            case ServerPacketTypes.DATA:
                types = packet.block.columns_with_types
                return types, {**table, **{name: LiveColumn(kind, _kind(table, name)) for name, kind in types}}
            case ServerPacketTypes.TABLE_COLUMNS:
                table = parse_columns(packet.multistring_message[1])
            case ServerPacketTypes.EXCEPTION:
                raise packet.exception
            case ServerPacketTypes.LOG:
                log_block(packet.block)
            case _:
                expected = "Data, Exception, Log or TableColumns"
                message = client.connection.unexpected_packet_message(expected, packet.type)
                raise UnexpectedPacketFromServerError(message)


def _kind(table: Mapping[str, LiveColumn], name: str) -> str:
    return table[name].kind if name in table else ""


def write_block(buffer: OutputBuffer, types: Sequence[tuple[str, str]], columns: Mapping[str, Column]) -> None:
    """Write the columns of one block.

    Args:
        buffer: buffer of the driver.
        types: name and ClickHouse type of each column, in the order of the INSERT.
        columns: by name, all of one length, in the forms of `pipeline.columns.Column`.

    Raises:
        TypeError: no writer for the type of a column.
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
    def write(buffer: OutputBuffer, column: np.ndarray[Any, Any]) -> None:
        buffer.write(column.astype(dtype, copy=False).tobytes())

    return write


def _fixed_strings(width: int) -> Writer:
    def write(buffer: OutputBuffer, column: Column) -> None:
        if isinstance(column, np.ndarray) and column.dtype.itemsize == width:
            buffer.write(column.tobytes())
            return
        values = column.to_list() if isinstance(column, DictionaryColumn) else list(column)
        buffer.write(b"".join(value.ljust(width, b"\0") for value in values))

    return write


def _write_uuids(buffer: OutputBuffer, column: np.ndarray[Any, Any]) -> None:
    """Write each UUID as two little-endian 64-bit numbers, the more significant one first."""
    buffer.write(column.view(">u8").astype("<u8").tobytes())


def _write_strings(buffer: OutputBuffer, column: Column) -> None:
    buffer.write_strings(column.to_list() if isinstance(column, DictionaryColumn) else column)  # type: ignore[arg-type]


def _write_dictionary(buffer: OutputBuffer, column: Column) -> None:
    """Write the distinct values, then an index for each row."""
    encoded = column if isinstance(column, DictionaryColumn) else DictionaryColumn.encode(column)  # type: ignore[arg-type]
    codes = encoded.codes.astype(np.min_scalar_type(len(encoded.values)))
    flags = _DICTIONARY_FLAGS | _INDEX_TYPES[codes.dtype.itemsize]
    buffer.write(np.array([_DICTIONARY_VERSION, flags, len(encoded.values)], "<i8").tobytes())
    buffer.write_strings(encoded.values)
    buffer.write(np.array([len(codes)], "<i8").tobytes())
    buffer.write(codes.tobytes())


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
"""Pattern of a type's name, and the function that makes a writer from its match."""
