"""Codecs of Kafka's batches: what each of them reads, by the number that a batch names."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import cramjam
import numpy as np

from pipeline.columns.core import compiled

_XERIAL = b"\x82SNAPPY\0"  # Java's snappy: blocks behind a head of 16 bytes, each with its length
_XERIAL_HEAD = 16
_LZ4 = 3
_LZ4_HEAD = struct.Struct("<IBB")
_LZ4_MAGIC = 0x184D2204
_LZ4_INDEPENDENT = 0b011  # version 1, and blocks that don't need the ones before them
_LZ4_FULL_BLOCKS = {4: 1 << 16, 5: 1 << 18, 6: 1 << 20, 7: 1 << 22}
_FAULTS = (cramjam.DecompressionError, OSError, ValueError, OverflowError)  # of bytes that a codec can't read
_RATIO, _LEAST = 16, 4096  # output that is tried first: so many times the input, and so much more


class CodecError(Exception):
    """Bytes that a codec can't read; the message is the fault."""


def unpacked(codec: int, data: memoryview, most: int) -> Any:
    """Return the bytes of a batch's records, as any buffer.

    Args:
        codec: number of the codec.
        data: the records as the batch has them.
        most: most bytes that compressed records may have; a few KB can stand for gigabytes.

    Raises:
        CodecError: the codec is unknown, the bytes aren't its own, or they are too many.
    """
    if codec == 0 or not len(data):
        return data
    read = _CODECS.get(codec)
    if read is None:
        raise CodecError(f"its codec {codec} is unknown")
    try:
        return read(data, most)
    except _FAULTS as error:
        limit = f"{most} bytes, the limit of CHIMERA_KAFKA__MAX_UNPACKED_BYTES"
        raise CodecError(f"it can't be decompressed to at most {limit}: {error}") from error


def unpack_into(codec: int, data: memoryview, room: memoryview) -> int:
    """Write the bytes of a batch's records into room for them, and return their number.

    Args:
        codec: number of the codec.
        data: the records as the batch has them.
        room: as many bytes as the records have, or more.

    Raises:
        CodecError: as `unpacked`.
    """
    try:
        if codec in _INTO and len(data):
            return _INTO[codec](data, room)
        piece = unpacked(codec, data, len(room))
        room[: len(piece)] = piece
    except _FAULTS as error:
        raise CodecError(str(error)) from error
    return len(piece)


def may_be_unpacked_at_once(data: memoryview, size: int) -> bool:
    """Tell whether a size is usual for so many compressed bytes: if it is false, it costs little room."""
    return size <= _RATIO * len(data) + _LEAST


def unpacked_size(codec: int, data: memoryview) -> int | None:
    """Return the size of a batch's records without decompressing them; None if that can't be told.

    Args:
        codec: number of the codec.
        data: the records as the batch has them; they may be damaged nevertheless.
    """
    if codec == 0 or not len(data):
        return len(data)
    if codec != _LZ4:
        return None
    core = compiled()
    return _lz4_size(data) if core is None else core.lz4_size(data)


def _lz4_size(data: memoryview) -> int | None:
    """Return what the core returns for independent blocks; the last one is decompressed, all others are full."""
    try:
        magic, flags, descriptor = _LZ4_HEAD.unpack_from(data)
        full = _LZ4_FULL_BLOCKS[descriptor >> 4]
        if magic != _LZ4_MAGIC or flags >> 5 != _LZ4_INDEPENDENT:
            return None
        at = _LZ4_HEAD.size + 8 * (flags >> 3 & 1) + 4 * (flags & 1) + 1
        blocks, stored, last = 0, True, data[:0]
        while head := int.from_bytes(data[at : at + 4], "little"):
            stored, size = head >> 31 == 1, head & 0x7FFFFFFF
            last = data[at + 4 : at + 4 + size]
            at += 4 + size + 4 * (flags >> 4 & 1)
            blocks += 1
        if at + 4 + 4 * (flags >> 2 & 1) != len(data):
            return None
        left = len(last) if stored else cramjam.lz4.decompress_block_into(last, np.empty(full, np.uint8).data)
    except (struct.error, KeyError, *_FAULTS):
        return None
    return max(blocks - 1, 0) * full + left


def _reading(into: Callable[[memoryview, Any], int]) -> Callable[[memoryview, int], Any]:
    """Return a reader that never makes more bytes than its limit."""

    def read(data: memoryview, most: int) -> Any:
        size = min(most, _RATIO * len(data) + _LEAST)
        while True:
            output = np.empty(size, np.uint8)
            try:
                return output[: into(data, output)]
            except cramjam.DecompressionError:
                if size == most:
                    raise
                size = most  # pages that aren't written take no memory

    return read


def _snappy(data: memoryview, most: int) -> Any:
    if data[: len(_XERIAL)] != _XERIAL or len(data) <= _XERIAL_HEAD:
        return _block(data, most)
    blocks, left = list[Any](), most
    for block in _xerial_blocks(data):
        blocks.append(_block(block, left))
        left -= len(blocks[-1])
    return b"".join(blocks)


def _block(data: memoryview, most: int) -> Any:
    if (size := cramjam.snappy.decompress_raw_len(data)) > most:
        raise ValueError(f"{size} bytes where {most} are left")
    return cramjam.snappy.decompress_raw(data)


def _xerial_blocks(data: memoryview) -> Iterator[memoryview]:
    at = _XERIAL_HEAD
    while at < len(data):
        stop = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if stop > len(data):
            raise ValueError("a block ends behind its batch")
        yield data[at + 4 : stop]
        at = stop


_INTO: dict[int, Callable[[memoryview, Any], int]] = {
    1: cramjam.gzip.decompress_into,
    _LZ4: cramjam.lz4.decompress_into,
    4: cramjam.zstd.decompress_into,
}
_CODECS = {2: _snappy, **{codec: _reading(into) for codec, into in _INTO.items()}}
