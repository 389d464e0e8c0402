"""The compiled core: `core.zig` through ctypes, without the GIL. It does the usual case of what numpy does elsewhere.

`compiled()` gives the core, or None: where it wasn't built, or where a setting turns it off, numpy does all.
"""

import ctypes
import secrets
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns.rows import Ints, Mask
from pipeline.columns.spans import ByteBuffer, Spans, bytes_written, split_at

_FILE = Path(__file__).with_name("libchimera_core.so")
_SOURCE = Path(__file__).with_name("core.zig")
_MOST_PER_SLOT = 2  # slots of a hash table for each row
_LONGEST = np.array([(1 << 7 * octets) - 1 for octets in range(1, 9)])  # longest text by the bytes of its length
_P = ctypes.c_void_p
_U64, _I64 = ctypes.c_uint64, ctypes.c_int64

KINDS = {
    name: number
    for number, name in enumerate(
        ("skip", "int", "float", "double", "boolean", "uuid", "decimal", "closed", "fixed", "text", "bytes")
    )
}
WRITTEN = {name: number for number, name in enumerate(("boolean", "int", "long", "float", "double", "string", "bytes"))}
_DTYPES = {
    "int": "i8",
    "float": "f4",
    "double": "f8",
    "boolean": "?",
    "uuid": "V16",
    "decimal": "i8",
    "closed": "u4",
    "text": "u4",
}
BATCH = np.dtype(
    [(name, "i8") for name in ("start", "stop", "records", "last_delta", "base", "time", "appended_at", "appended")]
)


class _Field(ctypes.Structure):
    _fields_ = (
        ("written", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
        ("low", _I64),
        ("high", _I64),
        ("float_low", ctypes.c_double),
        ("float_high", ctypes.c_double),
        ("most", _U64),
        ("width", _U64),
        ("allowed", _P),
        ("allowed_ends", _P),
        ("allowed_count", _U64),
        ("values", _P),
        ("starts", _P),
        ("lengths", _P),
        ("distinct", _U64),
        ("most_distinct", _U64),
        ("texts", _P),
        ("texts_used", _U64),
        ("texts_size", _U64),
        ("table", _P),
        ("table_size", _U64),
    )


@dataclass(frozen=True, slots=True)
class CompiledField:
    """A field of flat records, and the checks of its values; bounds are inclusive."""

    name: str
    written: str
    kind: str
    low: int = -(2**63)
    high: int = 2**63 - 1
    float_low: float = float("-inf")
    float_high: float = float("inf")
    most: int = 2**63 - 1
    """Most bytes of a text."""
    width: int = 0
    """Bytes of a fixed text."""
    allowed: tuple[bytes, ...] = ()
    """Values of a closed set; the characters of a fixed text."""

    def as_table(self) -> bytes:
        """Return the allowed values as the core takes them."""
        if self.kind != "fixed":
            return b"".join(self.allowed)
        return bytes(bytes((octet,)) in self.allowed for octet in range(256))


class DistinctTexts:
    """The distinct texts of a field, over one decoding or several, in the order of their first rows.

    Args:
        rows: number of rows that all decodings have together.
    """

    __slots__ = ("_bytes", "_lengths", "_most", "_starts", "_table", "_used", "values")

    def __init__(self, rows: int) -> None:
        self._most = rows
        self._table = np.zeros(1 << max(1, (_MOST_PER_SLOT * rows - 1).bit_length()), np.uint32)
        self._starts, self._lengths = np.empty(rows, np.int64), np.empty(rows, np.int64)
        self._bytes, self._used = np.empty(0, np.uint8), 0
        self.values: list[bytes] = []
        """Text number i is `values[i]`."""

    def has_room(self, rows: int) -> bool:
        """Tell whether a decoding of so many rows is within the number of rows."""
        return len(self.values) + rows <= self._most

    def lend(self, of: _Field, octets: int) -> None:
        """Let the core use and extend these texts, by at most so many bytes; `learn` ends it."""
        if (needed := self._used + octets) > len(self._bytes):
            larger = np.empty(max(needed, 2 * len(self._bytes)), np.uint8)  # pages that aren't written take no memory
            larger[: self._used] = self._bytes[: self._used]
            self._bytes = larger
        of.starts, of.lengths, of.table = self._starts.ctypes.data, self._lengths.ctypes.data, self._table.ctypes.data
        of.distinct, of.most_distinct, of.table_size = len(self.values), self._most, len(self._table)
        of.texts, of.texts_used, of.texts_size = self._bytes.ctypes.data, self._used, len(self._bytes)

    def learn(self, of: _Field) -> None:
        """Take over the texts that the core has added."""
        added, first = self._bytes[self._used : of.texts_used].tobytes(), len(self.values)
        stops = (self._starts[first : of.distinct] + self._lengths[first : of.distinct] - self._used).tolist()
        self.values += split_at(added, stops)
        self._used = of.texts_used


CompiledColumn = NDArray[Any] | Spans


@dataclass(slots=True)
class Decoded:
    """Columns of many records, and a mark for each record that has to be decoded in another way."""

    columns: dict[str, CompiledColumn]
    """Values by field; numbers of the values of a closed set and of distinct texts."""
    marked: Mask


@dataclass(frozen=True)
class Core:
    """The loaded library."""

    library: ctypes.CDLL
    seed: int = field(default_factory=lambda: secrets.randbits(64))  # no sender knows which texts share a slot

    def records(self, buffer: ByteBuffer, batches: NDArray[Any]) -> list[Ints] | None:
        """Find the records of decompressed batches.

        Args:
            buffer: has their bytes.
            batches: of dtype BATCH; positions in the buffer, and facts of their heads. `appended_at` is the time of all
                records if `appended` isn't 0.

        Returns:
            Offsets and timestamps, then starts and lengths of keys, values and headers; None if something isn't as the
            format has it.
        """
        rows = int(batches["records"].sum())
        found: list[Ints] = [np.empty(rows, np.int64) for _ in range(8)]
        places = (_P * 8)(*(each.ctypes.data for each in found))
        whole = self.library.chimera_records(
            buffer.data, len(buffer.data), batches.ctypes.data, len(batches), places, rows
        )
        return found if whole else None

    def decode(self, values: Spans, fields: Sequence[CompiledField], texts: Mapping[str, DistinctTexts]) -> Decoded:
        """Decode records of a flat schema.

        Args:
            values: the records, without framing.
            fields: all fields, as they were written.
            texts: the distinct texts of each field of the kind "text"; those of the records are added.
        """
        rows = len(values)
        plan, kept, columns = (_Field * len(fields))(), list[Any](), dict[str, CompiledColumn]()
        octets = int(np.maximum(values.lengths, 0).sum())
        for of, each in zip(plan, fields, strict=True):
            _describe(of, each, kept)
            if each.kind == "bytes":
                spans = Spans(values.buffer, np.zeros(rows, np.int64), np.zeros(rows, np.int64))
                of.starts, of.lengths = spans.starts.ctypes.data, spans.lengths.ctypes.data
                columns[each.name] = spans
            elif each.kind != "skip":
                column = np.zeros(rows, _DTYPES.get(each.kind, f"V{each.width}"))
                of.values = column.ctypes.data
                columns[each.name] = column
            if each.kind == "text":
                texts[each.name].lend(of, octets)
        marks = np.empty(rows, np.bool_)
        with _lent(values) as records:
            self.library.chimera_decode(*records, plan, len(fields), self.seed, marks.ctypes.data)
        for of, each in zip(plan, fields, strict=True):
            if each.kind == "text":
                texts[each.name].learn(of)
        return Decoded(columns, marks)

    def other_uuids(self, texts: Spans, wanted: NDArray[Any]) -> Mask:
        """Return true for each row whose text isn't its UUID: neither as text with dashes, nor as its 16 bytes.

        Args:
            texts: a text for each row.
            wanted: a UUID of 16 bytes for each row.
        """
        marks, wanted = np.empty(len(texts), np.bool_), np.ascontiguousarray(wanted)
        with _lent(texts) as rows:
            self.library.chimera_other_uuids(*rows, wanted.ctypes.data, marks.ctypes.data)
        return marks

    def lz4_size(self, data: memoryview) -> int | None:
        """Return the number of bytes that an LZ4 frame stands for; None if the bytes aren't one whole frame.

        The frame may be damaged nevertheless: nothing is decompressed.
        """
        octets = np.frombuffer(data, np.uint8)
        size: int = self.library.chimera_lz4_size(octets.ctypes.data, len(octets))
        return None if size < 0 else size

    def strings(self, texts: Sequence[bytes], codes: NDArray[np.uint32]) -> bytes:
        """Return the texts of many rows, each behind its length as the server reads it; row i has `texts[codes[i]]`."""
        (joined, ends), codes = joined_texts(texts), np.ascontiguousarray(codes)
        sizes = np.diff(ends, prepend=0)
        known = len(joined), ends.ctypes.data, len(ends), codes.ctypes.data, len(codes)
        lengths = np.searchsorted(_LONGEST, sizes) + 1  # bytes of each length

        def write(room: memoryview) -> None:
            out = np.frombuffer(room, np.uint8)
            self.library.chimera_write(joined, *known, out.ctypes.data, len(out))

        return bytes_written(int((sizes + lengths)[codes].sum()), write)


def joined_texts(texts: Sequence[bytes]) -> tuple[bytes, Ints]:
    """Lay texts out one after the other, as the core takes them; return them, and where each ends."""
    return b"".join(texts), np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))


@contextmanager
def _lent(values: Spans) -> Iterator[tuple[Any, ...]]:
    """Lend spans to the core, alive for the block: buffer, its size, starts, lengths, number of rows."""
    starts, lengths = np.ascontiguousarray(values.starts), np.ascontiguousarray(values.lengths)
    yield values.buffer.data, len(values.buffer.data), starts.ctypes.data, lengths.ctypes.data, len(values)


def _describe(of: _Field, given: CompiledField, kept: list[Any]) -> None:
    """Fill the core's description of a field, without its column; `kept` gets what must stay alive."""
    of.written, of.kind = WRITTEN[given.written], KINDS[given.kind]
    of.low, of.high, of.float_low, of.float_high = given.low, given.high, given.float_low, given.float_high
    of.most, of.width = given.most, given.width
    if given.allowed:
        table, ends = _allowed(given)
        kept += [table, ends]
        of.allowed, of.allowed_ends, of.allowed_count = table.ctypes.data, ends.ctypes.data, len(given.allowed)


@cache
def _allowed(given: CompiledField) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    table = np.frombuffer(given.as_table() or b"\0", np.uint8)
    return table, np.cumsum([len(value) for value in given.allowed], dtype=np.uint64)


class _Choice:
    """Choice of this process; a command or the worker makes it once, before it reads a record."""

    use = True


def choose(*, use: bool) -> None:
    """Use the core if it is there, or numpy alone."""
    _Choice.use = use


def compiled() -> Core | None:
    """Return the core, or None if numpy has to do all."""
    return _load()[0] if _Choice.use else None


def why_not() -> str:
    """Say why numpy does all; empty if the core is used."""
    return _load()[1] if _Choice.use else "a setting turns it off"


@cache
def _load() -> tuple[Core | None, str]:
    return load(_FILE, _SOURCE)


def load(file: Path, source: Path) -> tuple[Core | None, str]:
    """Load the library; return the reason too if there is none.

    Args:
        file: the library.
        source: the source that it must be built from: one of another release may have other fields and checks.
    """
    if sys.byteorder != "little":
        return None, "it needs a little-endian machine"
    try:
        library = ctypes.CDLL(str(file))
        library.chimera_source.restype = ctypes.c_uint32
        same = library.chimera_source() == zlib.crc32(source.read_bytes())
        library.chimera_records.restype = ctypes.c_bool
        library.chimera_records.argtypes = (ctypes.c_char_p, _U64, _P, _U64, _P, _U64)
        library.chimera_decode.restype = None
        library.chimera_decode.argtypes = (ctypes.c_char_p, _U64, _P, _P, _U64, _P, _U64, _U64, _P)
        library.chimera_other_uuids.restype = None
        library.chimera_other_uuids.argtypes = (ctypes.c_char_p, _U64, _P, _P, _U64, _P, _P)
        library.chimera_lz4_size.restype = _I64
        library.chimera_lz4_size.argtypes = (_P, _U64)
        library.chimera_write.restype = _U64
        library.chimera_write.argtypes = (ctypes.c_char_p, _U64, _P, _U64, _P, _U64, _P, _U64)
        library.chimera_metadata.restype = _U64
        library.chimera_metadata.argtypes = (ctypes.c_char_p, _U64, _P, _U64, _U64, _P, _P, _U64, _P, _P)
    except (OSError, AttributeError) as error:
        return None, f"it can't be loaded: {error}"
    if not same:
        return None, f"{file} isn't built from {source}: install the package again"
    return Core(library), ""
