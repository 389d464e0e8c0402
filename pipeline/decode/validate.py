"""Checks decoded columns against the declarations of the schema: bounds, patterns, closed sets, lengths, forms.

Each check covers a whole column; a regular expression runs once per distinct value. A record's verdict depends only on
that record.
"""

import math
import re
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import WIDE, ByteBuffer, Column, DictionaryColumn, Ints, Mask, Spans, Verdicts
from pipeline.decode.raw import Symbols
from pipeline.errors import Reason
from pipeline.schema.fields import Field
from pipeline.schema.types import NARROW_DECIMAL_PRECISION

UUID_TEXT_BYTES = 36
_UUID_DASHES = [8, 13, 18, 23]
_UUID_DIGITS = (
    (0, 8, 0),
    (9, 13, 8),
    (14, 18, 12),
    (19, 23, 16),
    (24, 36, 20),
)  # start and stop in the text, start in the digits
_NOT_HEX = 0x100
_LOW_BITS = 2**64 - 1
_BOUND_DIGITS = 400  # a bound may be any finite decimal number
_ONE_CLASS = re.compile(r"\^(?P<class>\[[^\]\[\\^]+\])\{(?P<count>[1-9][0-9]*)\}\$")


def _hex_pairs() -> NDArray[np.uint16]:
    """Table of the byte value of each pair of hexadecimal digits; the index is the pair as a little-endian number."""
    table = np.full(1 << 16, _NOT_HEX, np.uint16)
    for high in "0123456789abcdefABCDEF":
        for low in "0123456789abcdefABCDEF":
            table[int.from_bytes((high + low).encode(), "little")] = int(high + low, 16)
    return table


_HEX_PAIRS = _hex_pairs()


def validate(verdicts: Verdicts, field: Field, raw: NDArray[Any] | Spans | Symbols) -> Column:
    """Check a scalar of every record, reject the records that fail, and return the column in its final form.

    Args:
        verdicts: one verdict per value; failures are added.
        field: the declaration.
        raw: the field as it was read: numbers, booleans, symbols, or spans of bytes.
    """
    if isinstance(raw, Symbols):
        verdicts.fail(raw.places < 0, Reason.NOT_IN_SET, f"{field.name}: not one of {', '.join(raw.symbols)}")
        symbols = [symbol.encode() for symbol in raw.symbols]
        return DictionaryColumn(raw.places.clip(0).astype(np.uint32), symbols)
    if not isinstance(raw, Spans):
        return _numbers(verdicts, field, raw)
    if field.logical_type == "decimal":
        narrow = field.precision <= NARROW_DECIMAL_PRECISION
        return _decimals(verdicts, field, raw) if narrow else _wide_decimals(verdicts, field, raw)
    if field.type == "fixed":
        return raw.buffer.gather(raw.starts, field.size)
    if field.type == "bytes":
        if field.max_length is not None:
            too_long = raw.lengths > field.max_length
            verdicts.fail(too_long, Reason.TOO_LONG, f"{field.name}: over {field.max_length} bytes")
        return raw.values()
    return _Strings(verdicts, field, raw).column()


def check_utf8(verdicts: Verdicts, field: Field, values: list[bytes]) -> None:
    """Reject the records whose value isn't UTF-8."""
    if not all(map(_is_utf8, values)):
        bad = np.fromiter((not _is_utf8(value) for value in values), np.bool_, len(values))
        verdicts.fail(bad, Reason.INVALID_UTF8, f"{field.name}: expected UTF-8")


def _is_utf8(value: bytes) -> bool:
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _has_no_nul(value: bytes) -> bool:
    return 0 not in value


_NUL = "a NUL byte"
_TEXT = ((_is_utf8, Reason.INVALID_UTF8, "expected UTF-8"), (_has_no_nul, Reason.NUL_BYTE, _NUL))


def _numbers(verdicts: Verdicts, field: Field, values: NDArray[Any]) -> Column:
    if field.type in {"float", "double"}:
        verdicts.fail(~np.isfinite(values), Reason.NOT_FINITE, f"{field.name}: expected a finite number")
    _check_bounds(verdicts, field, values)
    return values


def _check_bounds(verdicts: Verdicts, field: Field, values: NDArray[Any], scale: int = 1) -> None:
    """Check inclusive bounds in the column's own type, so that 0.1 as a float32 isn't above a bound of 0.1."""
    low, high = field.minimum, field.maximum
    if values.dtype == np.int64:
        low = None if low is None else math.ceil(low * scale)
        high = None if high is None else math.floor(high * scale)
    with np.errstate(over="ignore"):  # a bound beyond float32 becomes infinite
        if low is not None:
            verdicts.fail(values < low, Reason.OUT_OF_BOUNDS, f"{field.name}: below {field.minimum}")
        if high is not None:
            verdicts.fail(values > high, Reason.OUT_OF_BOUNDS, f"{field.name}: above {field.maximum}")


def _decimals(verdicts: Verdicts, field: Field, spans: Spans) -> Ints:
    """Read two's complement big-endian integers: the values times 10^scale."""
    starts, lengths = spans.starts, spans.lengths
    verdicts.fail(lengths == 0, Reason.MALFORMED, f"{field.name}: a decimal has at least one byte")
    # Read the 8 bytes that end with the number; an arithmetic shift drops the bytes before it.
    ending = spans.buffer.gather(starts + lengths - 8, 8, ">i8").astype(np.int64)
    shift = (8 - np.clip(lengths, 1, 8)) * 8
    values = (ending << shift) >> shift
    limit = 10**field.precision
    longer = np.flatnonzero(lengths > 8)
    numbers = (int.from_bytes(number, "big", signed=True) for number in spans[longer].values())
    values[longer] = [max(-limit, min(limit, number)) for number in numbers]
    too_wide = (values <= -limit) | (values >= limit)
    verdicts.fail(too_wide, Reason.OUT_OF_BOUNDS, f"{field.name}: more than {field.precision} digits")
    _check_bounds(verdicts, field, values, 10**field.scale)
    return values


def _wide_decimals(verdicts: Verdicts, field: Field, spans: Spans) -> NDArray[Any]:
    """Read two's complement big-endian integers of up to 38 digits, as `WIDE`."""
    verdicts.fail(spans.lengths == 0, Reason.MALFORMED, f"{field.name}: a decimal has at least one byte")
    numbers = [int.from_bytes(number, "big", signed=True) for number in spans.values()]
    limit, scaled = 10**field.precision, Context(prec=_BOUND_DIGITS).scaleb
    low = None if field.minimum is None else math.ceil(scaled(Decimal(field.minimum), field.scale))
    high = None if field.maximum is None else math.floor(scaled(Decimal(field.maximum), field.scale))
    for refused, problem in (
        (lambda number: not -limit < number < limit, f"more than {field.precision} digits"),
        (lambda number: low is not None and number < low, f"below {field.minimum}"),
        (lambda number: high is not None and number > high, f"above {field.maximum}"),
    ):
        bad = np.fromiter(map(refused, numbers), np.bool_, len(numbers))
        verdicts.fail(bad, Reason.OUT_OF_BOUNDS, f"{field.name}: {problem}")
    within = (max(-limit, min(limit, number)) for number in numbers)
    return np.array([(number & _LOW_BITS, number >> 64) for number in within], WIDE)


@dataclass(frozen=True, slots=True)
class _Strings:
    """One string field of every record."""

    verdicts: Verdicts
    field: Field
    spans: Spans

    def column(self) -> Column:
        if self.field.logical_type == "uuid":
            return self.uuids()
        limit = self.field.max_length
        if limit is not None:
            self.fail(self.spans.lengths > limit, Reason.TOO_LONG, f"over {limit} bytes")
        if self.field.values is not None:
            return self.closed_set([value.encode() for value in self.field.values])
        if self.field.pattern is None:
            return self.text()
        one = one_class(self.field.pattern)
        return self.fixed(self.field.pattern, *one) if one else self.patterned(self.field.pattern)

    def fail(self, bad: Mask, reason: Reason, expected: str) -> None:
        self.verdicts.fail(bad, reason, f"{self.field.name}: {expected}")

    def refuse(self, bad: Mask, reason: Reason, expected: str) -> None:
        """Reject the records of `bad` for `reason`, or for invalid UTF-8 or NUL if they have it."""
        rows = np.flatnonzero(bad)
        values = self.spans[rows].values()
        for is_text, why, what in _TEXT:
            wrong = np.zeros(len(bad), np.bool_)
            wrong[rows] = [not is_text(value) for value in values]
            self.fail(wrong, why, what)
        self.fail(bad, reason, expected)

    def text(self) -> DictionaryColumn:
        """Read text; each distinct value is checked once."""
        column = self.spans.encoded()
        together = b"".join(column.values)
        if together.isascii() and _has_no_nul(together):
            return column
        for is_text, why, what in _TEXT:
            if not all(map(is_text, column.values)):
                bad = np.fromiter((not is_text(value) for value in column.values), np.bool_, len(column.values))
                self.fail(bad[column.codes], why, what)
        return column

    def uuids(self) -> NDArray[np.void]:
        """Read UUIDs of the canonical 36-character form, digits in either case, as 16 bytes."""
        text = self.spans.buffer.gather(self.spans.starts, UUID_TEXT_BYTES).view(np.uint8).reshape(-1, UUID_TEXT_BYTES)
        digits = np.empty((len(text), 32), np.uint8)
        for begin, stop, to in _UUID_DIGITS:
            digits[:, to : to + stop - begin] = text[:, begin:stop]
        octets = _HEX_PAIRS.take(digits.view("<u2"))
        bad = (self.spans.lengths != UUID_TEXT_BYTES) | (octets == _NOT_HEX).any(axis=1)
        bad |= (text[:, _UUID_DASHES] != ord("-")).any(axis=1)
        self.refuse(bad, Reason.INVALID_UUID, "expected the 8-4-4-4-12 form of a UUID")
        return octets.astype(np.uint8).view("V16").reshape(-1)

    def closed_set(self, allowed: list[bytes]) -> DictionaryColumn:
        codes, found = self.spans.codes_of(allowed)
        self.refuse(~found, Reason.NOT_IN_SET, f"not one of {', '.join(self.field.values or ())}")
        return DictionaryColumn(codes, allowed)

    def fixed(self, pattern: re.Pattern[str], allowed: bytes, width: int) -> NDArray[np.void]:
        """Read strings of one length whose characters belong to one class."""
        text = self.spans.buffer.gather(self.spans.starts, width)
        bad = self.spans.lengths != width
        if text.tobytes().translate(None, allowed):  # one pass in C finds whether any row has another character
            bad |= ~np.isin(text.view(np.uint8), list(allowed)).reshape(-1, width).all(axis=1)
        self.refuse(bad, Reason.PATTERN_MISMATCH, f"does not match {pattern.pattern}")
        return text

    def patterned(self, pattern: re.Pattern[str]) -> DictionaryColumn:
        column = self.text()
        matches = (pattern.fullmatch(value.decode(errors="replace")) is not None for value in column.values)
        bad = ~np.fromiter(matches, np.bool_, len(column.values))
        self.fail(bad[column.codes], Reason.PATTERN_MISMATCH, f"does not match {pattern.pattern}")
        return column


@cache
def one_class(pattern: re.Pattern[str]) -> tuple[bytes, int] | None:
    """Characters and length that a pattern like `^[0-9a-f]{40}$` demands; None for other patterns."""
    match = _ONE_CLASS.fullmatch(pattern.pattern)
    if not match or not match["class"].isascii() or int(match["count"]) > ByteBuffer.MARGIN:
        return None
    allowed = re.findall(match["class"], "".join(map(chr, range(128))))
    return "".join(allowed).encode(), int(match["count"])
