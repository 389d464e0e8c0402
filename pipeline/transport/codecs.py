"""Codecs of Kafka's batches: what each of them reads, by the number that a batch names."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import cramjam

_XERIAL = b"\x82SNAPPY\0"  # Java's snappy: blocks behind a head of 16 bytes, each with its length
_XERIAL_HEAD = 16


class CodecError(Exception):
    """Bytes that a codec can't read; the message is the fault."""


def unpacked(codec: int, data: memoryview) -> Any:
    """Return the bytes of a batch's records, as any buffer.

    Args:
        codec: number of the codec.
        data: the records as the batch has them.

    Raises:
        CodecError: the codec is unknown, or the bytes aren't its own.
    """
    read = _CODECS.get(codec)
    if read is None:
        raise CodecError(f"its codec {codec} is unknown")
    try:
        return read(data)
    except (cramjam.DecompressionError, OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise CodecError(f"it can't be decompressed: {error}") from error


def _snappy(data: memoryview) -> Any:
    if data[: len(_XERIAL)] != _XERIAL or len(data) <= _XERIAL_HEAD:
        return cramjam.snappy.decompress_raw(data)
    return b"".join(cramjam.snappy.decompress_raw(block) for block in _xerial_blocks(data))


def _xerial_blocks(data: memoryview) -> Iterator[memoryview]:
    at = _XERIAL_HEAD
    while at < len(data):
        stop = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if stop > len(data):
            raise ValueError("a block ends behind its batch")
        yield data[at + 4 : stop]
        at = stop


_CODECS: dict[int, Callable[[memoryview], Any]] = {
    0: lambda data: data,
    1: gzip.decompress,
    2: _snappy,
    3: cramjam.lz4.decompress,
    4: cramjam.zstd.decompress,
}
