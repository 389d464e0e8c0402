"""Strings of a native block: the same bytes in both ways, and as the driver writes them."""

from typing import Any

import numpy as np
import pytest
from clickhouse_driver.bufferedwriter import BufferedSocketWriter
from hypothesis import given
from hypothesis import strategies as st
from support.both_paths import by_both

from pipeline.clickhouse.native import write_block
from pipeline.columns import Column, DictionaryColumn
from pipeline.columns.core import compiled


class _Socket:
    """Socket that keeps what is sent."""

    def __init__(self) -> None:
        self.sent = b""

    def sendall(self, data: bytes) -> None:
        """Keep the bytes."""
        self.sent += data


def _written(column: Column) -> bytes:
    socket = _Socket()
    buffer: Any = BufferedSocketWriter(socket, 1000)
    write_block(buffer, [("text", "String")], {"text": column})
    buffer.flush()
    return socket.sent


@given(st.data())
def test_repeated_strings_are_written_as_the_driver_writes_each(data: st.DataObject) -> None:
    """Few distinct values or many, empty ones and long ones."""
    values = data.draw(
        st.lists(
            st.binary(max_size=20) | st.sampled_from([0, 127, 128, 16_383, 16_384, 20_000]).map(bytes),
            min_size=1,
            max_size=5,
        )
    )
    codes = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=60))
    column = DictionaryColumn(np.array(codes, np.uint32), values)
    by_core, reference = by_both(lambda: _written(column))
    assert by_core == reference == _written(column.to_list())


def test_repeated_strings_come_from_the_core() -> None:
    """No Python object is made for a row; codes may lie anywhere in memory."""
    core = compiled()
    assert core is not None
    texts = [b"a" * number for number in range(300)]
    codes = np.arange(1200, dtype=np.uint32)[::4]
    written = b"".join(_length(4 * number) + texts[4 * number] for number in range(75))
    assert core.strings(texts, codes[codes < 300]) == written


def _length(size: int) -> bytes:
    return bytes([size]) if size <= 0x7F else bytes([size & 0x7F | 0x80, size >> 7])


def test_a_column_without_rows_is_written() -> None:
    """An array of strings may be empty in every row."""
    column = DictionaryColumn(np.zeros(0, np.uint32), [])
    by_core, reference = by_both(lambda: _written(column))
    assert by_core == reference == _written([])


def test_a_number_without_a_text_is_refused() -> None:
    """It never becomes a read beyond the texts."""
    core = compiled()
    assert core is not None
    with pytest.raises(IndexError):
        core.strings([b"a"], np.array([1], np.uint32))
