"""Promotes and checks fields that may be null, lists and maps, and the scalars in them."""

from typing import Any

import numpy as np

from pipeline.columns import Column, ItemsColumn, NullableColumn, PartVerdicts, Spans, Verdicts, spread
from pipeline.decode.raw import Items, Nullable, Raw, Symbols
from pipeline.decode.validate import check_utf8, validate
from pipeline.errors import Reason
from pipeline.schema.fields import Field
from pipeline.schema.resolution import layout_of_value

_DTYPES: dict[str, type[np.generic]] = {
    "boolean": np.bool_,
    "int": np.int64,
    "long": np.int64,
    "float": np.float32,
    "double": np.float64,
}


def promoted(verdicts: Verdicts, field: Field, written: Any, raw: Raw) -> Raw:
    """Promote values to the type of the reader's field.

    Args:
        verdicts: one verdict per value; gets text that isn't UTF-8.
        field: the reader's field, or that of a list's items.
        written: Avro type that was written, without logical types; None for a default.
        raw: the values as they were read.
    """
    if isinstance(raw, Nullable):
        part = PartVerdicts(verdicts, np.flatnonzero(raw.present))
        return Nullable(raw.present, _promoted_value(part, field, layout_of_value(written), raw.values))
    value = _promoted_value(verdicts, field, written, raw)
    return Nullable(np.ones(len(verdicts), np.bool_), value) if field.nullable else value


def _promoted_value(verdicts: Verdicts, field: Field, written: Any, raw: Raw) -> Raw:
    match raw:
        case Items(lengths, items, keys) if field.items is not None:
            member = None if written is None else written.get("items", written.get("values"))
            part = PartVerdicts(verdicts, raw.rows)
            return Items(lengths, _promoted_value(part, field.items, member, items), keys)
        case Symbols(places, symbols):
            return Symbols(_places(field, symbols)[places], field.values or ())
        case Spans():
            if written == "string" and field.type == "bytes":
                check_utf8(verdicts, field, raw.values())
            return raw
        case np.ndarray():
            dtype = _DTYPES[field.type]
            return raw if raw.dtype == dtype else raw.astype(np.float64).astype(dtype)
    return raw


def _places(field: Field, written: Any) -> Any:
    """Return the place of each written symbol among the reader's; below 0 if that has neither it nor a default."""
    place_of = {symbol: place for place, symbol in enumerate(field.values or ())}
    other = place_of.get(field.default_symbol or "", -1)
    return np.array([place_of.get(symbol, other) for symbol in written], np.int64)


def validate_field(verdicts: Verdicts, field: Field, raw: Raw) -> Column:
    """Check one field of every record, reject the records that fail, and return the column in its final form.

    Args:
        verdicts: one verdict per record; failures are added.
        field: the declaration.
        raw: the field as it was read and promoted.
    """
    if isinstance(raw, Nullable):
        part = PartVerdicts(verdicts, np.flatnonzero(raw.present))
        return NullableColumn(raw.present, spread(validate_field(part, field, raw.values), raw.present))
    if not isinstance(raw, Items) or field.items is None:
        assert not isinstance(raw, Items)
        return validate(verdicts, field, raw)
    if field.max_items is not None:
        too_many = raw.lengths > field.max_items
        verdicts.fail(too_many, Reason.TOO_LONG, f"{field.name}: over {field.max_items} items")
    part = PartVerdicts(verdicts, raw.rows)
    keys = None if raw.keys is None else validate(part, _key(field), raw.keys)
    items = validate_field(part, field.items, raw.items)
    return ItemsColumn(raw.lengths, items, keys)


def _key(field: Field) -> Field:
    """Return the declaration of a map's keys."""
    return Field(field.name, "string", pattern=field.key_pattern)
