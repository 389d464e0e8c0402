"""Inserts of numpy columns over ClickHouse's native protocol.

The driver's own writers take one Python object per value; a micro-batch already has arrays, which
`pipeline.clickhouse.column_writers` lays out.

No other module uses undocumented parts of clickhouse-driver; `insert_block` and `write_block` have all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clickhouse_driver import Client
from clickhouse_driver.block import BlockInfo, ColumnOrientedBlock
from clickhouse_driver.errors import UnexpectedPacketFromServerError
from clickhouse_driver.log import log_block
from clickhouse_driver.protocol import ClientPacketTypes, ServerPacketTypes
from clickhouse_driver.varint import write_varint
from clickhouse_driver.writer import write_binary_str, write_binary_uint8

from pipeline.clickhouse.column_writers import OutputBuffer, writer
from pipeline.clickhouse.live_columns import LiveColumn, parse_columns
from pipeline.columns import Column


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
        writer(type_name)(buffer, columns[name])
