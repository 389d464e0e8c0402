"""Kafka's format of a batch, version 2: heads, and the records of many batches by column.

https://kafka.apache.org/documentation/#recordbatch describes it. Whoever fetches has checked the checksums.
"""

import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import ByteBuffer, Ints, Mask, Spans, varints, zigzag
from pipeline.columns.core import BATCH, compiled
from pipeline.errors import unreadable_batch
from pipeline.transport.codecs import CodecError, may_be_unpacked_at_once, unpack_into, unpacked, unpacked_size
from pipeline.transport.records import RecordColumns, varint_at

_HEAD = struct.Struct(">q9xIhiqq14xi")
_CODEC, _LOG_APPEND_TIME = 0x07, 0x08
_MORE = 0x80  # bit of a varint's byte that says that another one follows
_WIDEST = 10  # bytes of a varint
_LEAST_BYTES = 7  # of a record: its length, and six fields
MOST_UNPACKED = 128 * 1024 * 1024
"""Most bytes of a batch's records, if nothing else is said."""
_MOST_ROUNDS = 32  # headers of a record that are read by column; the rest of a longer list is read one by one


class DamagedBatchError(Exception):
    """A batch that can't be read, although its checksum is right; the message names it and its fault.

    Args:
        offsets: offsets of the batch.
        fault: its fault.
    """

    def __init__(self, offsets: range, fault: str) -> None:
        super().__init__(unreadable_batch(offsets, fault))
        self.offsets = offsets


class BatchHead(NamedTuple):
    """Facts about a batch that are in front of its records."""

    base_offset: int
    checksum: int
    attributes: int
    last_delta: int
    base_timestamp: int
    max_timestamp: int
    records: int
    """Number of records."""

    @classmethod
    def of(cls, batch: memoryview) -> "BatchHead":
        """Read the head of a whole batch."""
        return cls(*_HEAD.unpack_from(batch))

    @staticmethod
    def records_of(batch: memoryview) -> memoryview:
        """Return the records of a whole batch, compressed."""
        return batch[_HEAD.size :]

    @property
    def codec(self) -> int:
        """Number of the codec that compressed the records."""
        return self.attributes & _CODEC

    @property
    def dense(self) -> bool:
        """True if each offset has a record; compaction leaves gaps."""
        return self.last_delta == self.records - 1 >= 0

    @property
    def offsets(self) -> range:
        """Offsets of the batch, with a record or without."""
        return range(self.base_offset, self.base_offset + self.last_delta + 1)

    def unpack(self, data: memoryview, most: int) -> Any:
        """Return the bytes of the records, as any buffer.

        Args:
            data: the records, compressed.
            most: most bytes that they may have.

        Raises:
            DamagedBatchError: they can't be decompressed, or are more.
        """
        try:
            return unpacked(self.codec, data, most)
        except CodecError as error:
            raise DamagedBatchError(self.offsets, str(error)) from error

    def unpacked_size(self, data: memoryview, most: int) -> int:
        """Return the number of bytes of the records; they are decompressed only if nothing else tells it.

        Args and Raises: as `unpack`; but bytes that a codec measures without reading them may be damaged.
        """
        size = unpacked_size(self.codec, data)
        return len(self.unpack(data, most)) if size is None or size > most else size


def read_records(
    heads: Sequence[BatchHead], data: Sequence[memoryview], most: Sequence[int], sizes: Sequence[int] = ()
) -> RecordColumns:
    """Read all records of whole batches.

    Args:
        heads: heads of the batches.
        data: their records, compressed.
        most: most bytes that the records of each have.
        sizes: bytes that they have, or bounds, if they are known.

    Raises:
        DamagedBatchError: they aren't records, although the checksum of their batch is right; the message names it.
    """
    buffer, starts, stops = _at_once(heads, data, sizes) or _one_by_one(heads, data, most)
    found = _compiled(heads, buffer, starts, stops)
    return found or _Reading(heads, buffer, starts, stops).columns()


def _at_once(
    heads: Sequence[BatchHead], data: Sequence[memoryview], sizes: Sequence[int]
) -> tuple[ByteBuffer, Ints, Ints] | None:
    """Decompress batches of known sizes into one buffer; return where each begins and ends, None if that can't be."""
    if not sizes or not all(map(may_be_unpacked_at_once, data, sizes)):
        return None
    begins = [0, *accumulate(sizes)]
    written = np.zeros(len(heads), np.int64)

    def write(room: memoryview) -> None:
        for number, (head, packed) in enumerate(zip(heads, data, strict=True)):
            written[number] = unpack_into(head.codec, packed, room[begins[number] : begins[number + 1]])

    try:
        buffer = ByteBuffer.written(begins[-1], write)
    except CodecError:
        return None  # one by one, its batch is named
    starts = np.array(begins[:-1], np.int64) + ByteBuffer.MARGIN
    return buffer, starts, starts + written


def _one_by_one(
    heads: Sequence[BatchHead], data: Sequence[memoryview], most: Sequence[int]
) -> tuple[ByteBuffer, Ints, Ints]:
    """Decompress batches; return their buffer, and where each begins and ends. Raises as `read_records`."""
    pieces = [head.unpack(packed, bound) for head, packed, bound in zip(heads, data, most, strict=True)]
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    stops = np.cumsum(lengths) + ByteBuffer.MARGIN
    return ByteBuffer(pieces), stops - lengths, stops


def _compiled(heads: Sequence[BatchHead], buffer: ByteBuffer, starts: Ints, stops: Ints) -> RecordColumns | None:
    """Have the compiled core find the records; None without it, and if a batch is damaged."""
    # A head may have any number of records. numpy makes no room for more of them than there are.
    sizes = (stops - starts).tolist()
    believed = all(0 <= _LEAST_BYTES * head.records <= size for head, size in zip(heads, sizes, strict=True))
    if (core := compiled()) is None or not believed:
        return None
    batches = np.zeros(len(heads), BATCH)
    batches["start"], batches["stop"] = starts, stops
    for name, facts in zip(
        ("records", "last_delta", "base", "time", "appended_at", "appended"),
        zip(*(_facts(head) for head in heads), strict=True),
        strict=True,
    ):
        batches[name] = facts
    found = core.records(buffer, batches)
    if found is None:
        return None
    offsets, times, *spans = found
    keys, values, headers = (Spans(buffer, spans[at], spans[at + 1]) for at in (0, 2, 4))
    return RecordColumns(offsets, times, keys, values, headers)


def _facts(head: BatchHead) -> tuple[int, ...]:
    appended = head.attributes & _LOG_APPEND_TIME
    return head.records, head.last_delta, head.base_offset, head.base_timestamp, head.max_timestamp, appended


class _Reading:
    """Reading of whole batches: finds where each record begins, then reads field by field of all records at once."""

    def __init__(self, heads: Sequence[BatchHead], buffer: ByteBuffer, starts: Ints, stops: Ints) -> None:
        self._heads = heads
        self._buffer = buffer
        self._counts = np.array([head.records for head in heads], np.int64)
        begins = self._record_starts(starts.tolist(), stops.tolist())
        value, width, malformed = varints(self._buffer, begins)
        length = zigzag(value)
        self._bad: Mask = (length < 0) | (malformed & (width == _WIDEST))
        self._at = begins + width
        self._end = self._at + np.where(self._bad, 0, length)

    def columns(self) -> RecordColumns:
        """Read all fields.

        Raises:
            DamagedBatchError: a record isn't one.
        """
        self._advance(1)  # attributes, of which none has a meaning
        since_base, delta = self._number(), self._number()
        keys, values = self._spans(), self._spans()
        headers = Spans(self._buffer, self._at, self._end - self._at)
        self._check_headers()
        self._check_deltas(delta)
        self._refuse("one of its records isn't as the format has it")
        late = np.array([head.attributes & _LOG_APPEND_TIME for head in self._heads]) != 0
        times = np.array([(head.base_timestamp, head.max_timestamp) for head in self._heads], np.int64).reshape(-1, 2)
        written, appended = self._each(times[:, 0]) + since_base, self._each(times[:, 1])
        return RecordColumns(
            self._each(np.array([head.base_offset for head in self._heads], np.int64)) + delta,
            np.where(self._each(late), appended, written) if late.any() else written,
            keys,
            values,
            headers,
        )

    def _record_starts(self, starts: Sequence[int], stops: Sequence[int]) -> Ints:
        """Find where the records begin, each behind the one before: the one step that can't be taken by column."""
        found = list[int]()
        for head, start, stop in zip(self._heads, starts, stops, strict=True):
            before = len(found)
            end = _add_starts(self._buffer.data, start, stop, found)
            if end != stop or len(found) - before != head.records:
                raise DamagedBatchError(head.offsets, f"expected {head.records} whole records")
        return np.array(found, np.int64)

    def _number(self) -> Ints:
        """Read a number of each record; it needn't have the shortest form."""
        value, width, malformed = varints(self._buffer, self._at)
        self._bad |= malformed & (width == _WIDEST)
        self._advance(width)
        return zigzag(value)

    def _spans(self) -> Spans:
        """Read a length and the bytes behind it of each record; a negative length is null."""
        lengths = np.clip(self._number(), -1, self._end - self._at + 1)  # one more is too long, and can be added up
        spans = Spans(self._buffer, self._at, lengths)
        self._advance(np.maximum(lengths, 0))
        return spans

    def _advance(self, width: Ints | int) -> None:
        """Move on in each record, but never behind its end."""
        after = self._at + width
        self._bad |= after > self._end
        self._at = np.minimum(after, self._end)

    def _check_headers(self) -> None:
        """Find the records that don't end with their last header."""
        ends, counts = self._end, self._number()
        self._bad |= counts < 0
        rows = np.flatnonzero(counts > 0)
        self._bad |= (counts == 0) & (self._at != ends)
        if not rows.size:
            return
        inner = _Headers(self._buffer, self._at[rows], ends[rows], counts[rows])
        self._bad[rows] |= inner.bad()

    def _check_deltas(self, deltas: Ints) -> None:
        """Find the records whose offsets aren't those of their batch, or don't ascend."""
        last = self._each(np.array([head.last_delta for head in self._heads], np.int64))
        dense = self._each(np.array([head.dense for head in self._heads], np.bool_))
        firsts = np.cumsum(self._counts) - self._counts
        number = np.arange(len(deltas)) - self._each(firsts)
        follows = np.ones(len(deltas), np.bool_)
        follows[1:] = (deltas[1:] > deltas[:-1]) | (number[1:] == 0)
        self._bad |= np.where(dense, deltas != number, ~follows | (deltas < 0) | (deltas > last))

    def _each(self, of_batches: NDArray[Any]) -> NDArray[Any]:
        """Repeat a value of each batch for its records."""
        return np.repeat(of_batches, self._counts)

    def _refuse(self, fault: str) -> None:
        if self._bad.any():
            batch = np.searchsorted(np.cumsum(self._counts), np.flatnonzero(self._bad)[0], side="right")
            raise DamagedBatchError(self._heads[int(batch)].offsets, fault)


class _Headers:
    """Headers of records that have some: each round reads the next header of all records.

    Args:
        buffer: has the records.
        at: position of each record's first header.
        ends: end of each record.
        counts: number of each record's headers.
    """

    def __init__(self, buffer: ByteBuffer, at: Ints, ends: Ints, counts: Ints) -> None:
        self._buffer = buffer
        self._at, self._ends, self._counts = at, ends, counts

    def bad(self) -> Mask:
        """Return true for each record that doesn't end with its last header."""
        bad = (self._counts << 1) > self._ends - self._at  # a header has two bytes at least
        left = np.flatnonzero(~bad)
        for number in range(_MOST_ROUNDS):
            left = left[self._counts[left] > number]
            if not left.size:
                break
            at, ends = self._at[left], self._ends[left]
            wrong = np.zeros(len(left), np.bool_)
            for nullable in (False, True):  # any negative length of a value is null, a name has none
                value, width, malformed = varints(self._buffer, at)
                length = zigzag(value)
                wrong |= ((length < 0) & (not nullable)) | (length > ends - at) | (malformed & (width == _WIDEST))
                at = np.where(wrong, ends, at + width + np.clip(length, 0, None))
                wrong |= at > ends
                at = np.minimum(at, ends)
            self._at[left] = at
            bad[left[wrong]] = True
            left = left[~wrong]
        for row in left[self._counts[left] > _MOST_ROUNDS].tolist():
            bad[row] = not self._read_on(row)
        result: Mask = bad | (self._at != self._ends)
        return result

    def _read_on(self, row: int) -> bool:
        """Read the rest of a long list of headers; false if it isn't one."""
        data, at, end = self._buffer.data, int(self._at[row]), int(self._ends[row])
        for _ in range(int(self._counts[row]) - _MOST_ROUNDS):
            for nullable in (False, True):
                length, at = varint_at(data, at)
                if (length < 0 and not nullable) or at + max(length, 0) > end:
                    return False
                at += max(length, 0)
        self._at[row] = at
        return True


def _add_starts(data: bytes, at: int, stop: int, found: list[int]) -> int:
    """Add the positions of the records up to `stop`; return the end of the last one."""
    append = found.append
    while at < stop:
        append(at)
        if (first := data[at]) < _MORE:
            at += 1 + (first >> 1)
        elif (second := data[at + 1]) < _MORE:
            at += 2 + (first - _MORE >> 1) + (second << 6)
        else:  # over 8 KiB
            length, body = varint_at(data, at)
            at = body + max(length, 0)
    return at
