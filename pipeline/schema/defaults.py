"""Defaults of fields: as Avro's binary encoding, and as the values that JSON stands for."""

import io
from decimal import Context, Decimal
from typing import Any

import fastavro

from pipeline.schema.fields import Field

_DIGITS = 40  # more than a decimal has


def encoded_default(field: Field) -> bytes:
    """Encode the default of a field as Avro writes a value of it.

    Raises:
        ValueError, TypeError: the default isn't of the field's type.
    """
    stream = io.BytesIO()
    layout: Any = {"type": "record", "name": "Default", "fields": [{"name": field.name, "type": field.physical}]}
    schema = fastavro.parse_schema(layout, _write_hint=False)
    fastavro.schemaless_writer(stream, schema, {field.name: physical_default(field)})
    return stream.getvalue()


def physical_default(field: Field) -> Any:
    """Return the default of a field without its logical type: JSON writes bytes as text, one character per byte."""
    return _physical(field, field.default)


def meant_default(field: Field) -> Any:
    """Return the default of a field as a producer gives it: a decimal number instead of bytes."""
    return _meant(field, field.default)


def _physical(field: Field, value: Any) -> Any:
    if value is None:
        return None
    if field.items is not None:
        return _each(field.items, value, _physical)
    return value.encode("latin-1") if field.type in {"bytes", "fixed"} else value


def _meant(field: Field, value: Any) -> Any:
    if value is None:
        return None
    if field.items is not None:
        return _each(field.items, value, _meant)
    physical = _physical(field, value)
    if field.logical_type != "decimal":
        return physical
    return Context(prec=_DIGITS).scaleb(Decimal(int.from_bytes(physical, "big", signed=True)), -field.scale)


def _each(items: Field, value: Any, convert: Any) -> Any:
    if isinstance(value, dict):
        return {key: convert(items, member) for key, member in value.items()}
    return [convert(items, member) for member in value]
