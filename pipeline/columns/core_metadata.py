"""The core's filter of metadata: the usual texts of a micro-batch, in few calls, without an object for each value."""

import ctypes
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.columns.core import Core, joined_texts
from pipeline.columns.spans import split_at

_ROOM = 1 << 18  # bytes of results of a call; they stay in the processor's cache


class _Rules(ctypes.Structure):
    _fields_ = (
        ("key", ctypes.c_char_p),
        ("declared", ctypes.c_char_p),
        ("declared_size", ctypes.c_uint64),
        ("most_bytes", ctypes.c_uint64),
        ("most_brackets", ctypes.c_uint64),
        ("below", ctypes.c_uint64),
        ("decimals", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class MetadataRules:
    """The treatment of one field's metadata."""

    key: bytes
    """Key of the hash, a block of 64 bytes."""
    keys: Mapping[str, Iterable[str]]
    """Declared keys, and the strings that each keeps."""
    most_bytes: int
    most_brackets: int
    below: int
    """Numbers below it are kept under declared keys."""
    decimals: int
    """Most decimals of a number that is kept."""

    @cached_property
    def declared(self) -> bytes:
        """Return the declared keys as the core takes them."""
        return b"".join(
            _sized(key.encode()) + _sized(b"".join(_sized(text.encode()) for text in kept))
            for key, kept in self.keys.items()
        )

    def filtered(self, core: Core, texts: Sequence[bytes]) -> list[bytes | None]:
        """Filter texts; None for each that isn't of the usual form, which the caller has to filter."""
        joined, ends = joined_texts(texts)
        out, out_ends, marks = (
            np.empty(_ROOM, np.uint8),
            np.empty(len(texts), np.uint64),
            np.empty(len(texts), np.bool_),
        )
        limits = (self.most_bytes, self.most_brackets, self.below, self.decimals)
        rules = _Rules(self.key, self.declared, len(self.declared), *limits, core.seed)
        given = joined, len(joined), ends.ctypes.data, len(texts)
        results = out.ctypes.data, len(out), out_ends.ctypes.data, marks.ctypes.data
        found, done = list[bytes | None](), 0
        while done < len(texts):
            first, done = done, core.library.chimera_metadata(*given, done, ctypes.byref(rules), *results)
            stops = out_ends[first:done].tolist()
            found += split_at(out[: stops[-1]].tobytes(), stops)
        for number in np.flatnonzero(marks).tolist():
            found[number] = None
        return found


def _sized(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text
