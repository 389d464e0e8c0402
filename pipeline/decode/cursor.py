"""Reads Avro fields of many records at once: one position per record, each step a numpy operation.

The encoding is Avro's binary one, in canonical form only: shortest varints, booleans 0 or 1. So each value has one
encoding, and encoding it again gives the same bytes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Ints, Mask, Spans, Verdicts, varints, zigzag
from pipeline.errors import Reason

_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1


Raw = NDArray[Any] | Spans
"""A field of many records before validation: numbers or booleans, or the spans of its bytes."""


class Cursor:
    """A position in each of n records; reading a field advances it. A rejected record is carried along and ignored.

    Args:
        records: spans of the records' bodies, without framing.
    """

    def __init__(self, records: Spans) -> None:
        self.verdicts = Verdicts(len(records))
        self._buffer = records.buffer
        self._position = records.starts
        self._end = records.starts + records.lengths

    def read(self, avro_type: str, name: str) -> Raw:
        """Read the next field of every record: int64, float32, float64 or bool, or spans of strings and bytes."""
        match avro_type:
            case "long":
                return self._longs(name)
            case "int":
                return self._ints(name)
            case "float":
                return self._fixed(4, "<f4", name)
            case "double":
                return self._fixed(8, "<f8", name)
            case "boolean":
                return self._booleans(name)
        return self._spans(name)

    def finish(self) -> None:
        """Reject each record that has bytes after its last field."""
        self.verdicts.fail(self._position != self._end, Reason.TRAILING_BYTES, "bytes after the last field")

    def _longs(self, name: str) -> Ints:
        value, length, malformed = varints(self._buffer, self._position)
        self._advance(length, name)
        self.verdicts.fail(malformed, Reason.MALFORMED, f"{name}: not a canonical varint of at most 64 bits")
        return zigzag(value)

    def _ints(self, name: str) -> Ints:
        value = self._longs(name)
        self.verdicts.fail((value < _INT_MIN) | (value > _INT_MAX), Reason.MALFORMED, f"{name}: wider than 32 bits")
        return value

    def _booleans(self, name: str) -> Mask:
        value = self._fixed(1, "u1", name)
        self.verdicts.fail(value > 1, Reason.MALFORMED, f"{name}: a boolean is 0 or 1")
        return value.astype(np.bool_)

    def _spans(self, name: str) -> Spans:
        length = self._longs(name)
        negative, beyond = length < 0, length > self._end - self._position
        self.verdicts.fail(negative, Reason.MALFORMED, f"{name}: negative length")
        self.verdicts.fail(beyond, Reason.TRUNCATED, f"{name}: the record ends inside it")
        length[negative | beyond] = 0
        start = self._position
        self._position = start + length
        return Spans(self._buffer, start, length)

    def _fixed(self, width: int, dtype: str, name: str) -> NDArray[Any]:
        value = self._buffer.gather(self._position, width, dtype)
        self._advance(width, name)
        return value

    def _advance(self, length: Ints | int, name: str) -> None:
        after = self._position + length
        self.verdicts.fail(after > self._end, Reason.TRUNCATED, f"{name}: the record ends inside it")
        self._position = np.minimum(after, self._end)
