"""Plan of a flat writer schema for the compiled core, and its columns in the form that validation gives them.

The core leaves all that isn't the usual case to numpy: promoted types, fields that take their defaults, and each value
that a check refuses. So reasons and details come from one place.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from pipeline.columns import Column, DictionaryColumn, Mask, Spans
from pipeline.columns.core import CompiledColumn, CompiledField, Core, DistinctTexts
from pipeline.decode.validate import one_class
from pipeline.schema.fields import Field
from pipeline.schema.resolution import Resolution
from pipeline.schema.types import NARROW_DECIMAL_PRECISION, PRIMITIVES

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_SLICES = 16  # as large as the first one, for which there is room at once


@dataclass(frozen=True, slots=True)
class CompiledPlan:
    """Plan to decode the records of one writer schema.

    Args:
        written: all written fields, in their order.
        newest: fields of the rows, in their order.
    """

    written: Sequence[CompiledField]
    newest: Sequence[Field]

    @classmethod
    def of(cls, resolution: Resolution, newest: Sequence[Field]) -> "CompiledPlan | None":
        """Return the plan; None if numpy has to read these records."""
        reader = {field.name: field for field in newest}
        if resolution.missing or not resolution.flat:
            return None
        written = []
        for name, avro_type in resolution.written.items():
            field = reader.get(name)
            compiled = CompiledField(name, avro_type, "skip") if field is None else _compiled(field)
            if not isinstance(avro_type, str) or compiled is None or (field and field.physical != avro_type):
                return None
            written.append(compiled)
        return cls(tuple(written), tuple(newest))


class CompiledDecoding:
    """Decoding of the records of one plan in one micro-batch, some after the other: a text is one value in all of them.

    Args:
        plan: the plan.
        core: the compiled core.
        rows: number of records of the micro-batch.
    """

    def __init__(self, plan: CompiledPlan, core: Core, rows: int) -> None:
        self._plan, self._core, self._rows = plan, core, rows
        self._allowed = {
            field.name: [value.encode() for value in field.values] for field in plan.newest if field.values is not None
        }
        self._texts: dict[str, DistinctTexts] = {}
        self._refused: dict[str, list[bool]] = {}

    def columns(self, bodies: Spans) -> tuple[dict[str, Column], Mask]:
        """Decode records; return the columns, and true for each record that numpy has to decode: its row is nothing."""
        texts = self._texts_for(len(bodies))
        before = {name: len(each.values) for name, each in texts.items()}
        decoded = self._core.decode(bodies, self._plan.written, texts)
        marked = decoded.marked
        for field in self._plan.newest:
            if field.name in texts and field.pattern is not None:
                marked |= self._mismatches(field, decoded.columns[field.name])
        columns = {field.name: self._column(field, decoded.columns[field.name]) for field in self._plan.newest}
        if marked.any():  # texts of records that may be rejected stay out of the rows before and after
            for name, each in texts.items():
                column = columns[name]
                assert isinstance(column, DictionaryColumn)
                columns[name] = replace(column, values=list(each.values))
                del each.values[before[name] :]
            self._texts, self._rows = {}, 0
        return columns, marked

    def _texts_for(self, rows: int) -> Mapping[str, DistinctTexts]:
        """Return the distinct texts so far, with room for so many records; new ones if there is none."""
        if not all(each.has_room(rows) for each in self._texts.values()) or not self._texts:
            names = [each.name for each in self._plan.written if each.kind == "text"]
            most = max(rows, min(self._rows, _SLICES * rows))  # a writer schema may have few of the records
            self._texts = {name: DistinctTexts(most) for name in names}
            self._refused = {name: [] for name in names}
        return self._texts

    def _mismatches(self, field: Field, codes: CompiledColumn) -> Mask:
        """Return true for each row whose text doesn't match the field's pattern."""
        assert field.pattern is not None
        assert isinstance(codes, np.ndarray)
        values, refused = self._texts[field.name].values, self._refused[field.name]
        refused += [field.pattern.fullmatch(value.decode()) is None for value in values[len(refused) :]]
        return np.array(refused, np.bool_)[codes] if any(refused) else np.zeros(len(codes), np.bool_)

    def _column(self, field: Field, column: CompiledColumn) -> Column:
        """Return a column in its final form."""
        if isinstance(column, Spans):
            return column.values()
        values = self._allowed.get(field.name)
        if field.name in self._texts:
            values = self._texts[field.name].values
        return column if values is None else DictionaryColumn(column, values)


def is_compiled(field: Field) -> bool:
    """True if the core knows the type of a field."""
    return _compiled(field) is not None


def _compiled(field: Field) -> CompiledField | None:
    """Return the field as the core reads it; None if the core doesn't know its type."""
    low, high = _bounds(field, 10**field.scale)
    unknown = field.nullable or field.type not in PRIMITIVES or field.precision > NARROW_DECIMAL_PRECISION
    if unknown or low > _INT_MAX or high < _INT_MIN:  # no whole number of the core's width is within such bounds
        return None
    plain = CompiledField(field.name, field.type, field.type)
    match field.logical_type or field.type:
        case "uuid":
            plain = replace(plain, kind="uuid")
        case "decimal":
            limit = 10**field.precision - 1
            plain = replace(plain, kind="decimal", low=max(low, -limit), high=min(high, limit))
        case "float" | "double":
            least, most = field.minimum, field.maximum
            return replace(
                plain,
                float_low=-math.inf if least is None else float(least),
                float_high=math.inf if most is None else float(most),
            )
        case "string":
            return _text(field, replace(plain, most=_INT_MAX if field.max_length is None else field.max_length))
        case "boolean" | "bytes":
            return plain if field.max_length is None else None
        case _:
            plain = replace(plain, kind="int", low=low, high=high)
    return plain


def _text(field: Field, text: CompiledField) -> CompiledField:
    if field.values is not None:
        return replace(text, kind="closed", allowed=tuple(value.encode() for value in field.values))
    if field.pattern is not None and (one := one_class(field.pattern)):
        octets, width = one
        return replace(text, kind="fixed", width=width, allowed=tuple(bytes((octet,)) for octet in octets))
    return replace(text, kind="text")


def _bounds(field: Field, scale: int) -> tuple[int, int]:
    low, high = field.minimum, field.maximum
    return (
        _INT_MIN if low is None else max(_INT_MIN, math.ceil(Decimal(low) * scale)),
        _INT_MAX if high is None else min(_INT_MAX, math.floor(Decimal(high) * scale)),
    )
