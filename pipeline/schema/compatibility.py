"""Checks the compatibility of schema versions: a newer version accepts every record that an older one allowed.

The check is backward-transitive, and stricter than Avro's: a replay reads records of all versions and holds them to the
newest bounds, so a narrower bound would reject records that were stored before.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from pipeline.schema.convert import UnfitError, converter
from pipeline.schema.defaults import meant_default
from pipeline.schema.fields import Field
from pipeline.schema.privacy import FORMS
from pipeline.schema.resolution import resolve
from pipeline.schema.versions import Schema
from pipeline.schema.writer_schema import UnresolvableError

_INTEGER_BITS = {"int": 32, "long": 64}


@dataclass(frozen=True, slots=True)
class Problem:
    """A reason why valid records would be rejected."""

    schema: Schema
    text: str
    """The field, and the expected declaration."""
    older: Schema | None = None
    """The version whose records would be rejected; None if the schema contradicts itself."""

    def __str__(self) -> str:
        return f"{self.schema.file}: {self.text}" + (f" (records of {self.older.file.name})" if self.older else "")


def problems(families: Mapping[str, Sequence[Schema]]) -> tuple[Problem, ...]:
    """All problems of these schemas: within each version, and between it and each older version.

    Args:
        families: family name to its versions, oldest first.
    """
    return tuple(problem for versions in families.values() for problem in _family_problems(versions))


def _family_problems(versions: Sequence[Schema]) -> Iterator[Problem]:
    for position, schema in enumerate(versions):
        for field in schema.fields:
            for text in _refused_default(field):
                yield Problem(schema, f"{field.name}: {text}")
            if field.undeclared and schema is versions[-1]:
                yield Problem(schema, f"{field.name}.privacy: expected {FORMS}")
        for older in versions[:position]:
            for text in _breaks(older, schema):
                yield Problem(schema, text, older)


def _refused_default(field: Field) -> Iterator[str]:
    """Yield the problem if the field refuses its own default."""
    if field.required:
        return
    try:
        converter(field)(meant_default(field))
    except UnfitError as error:
        yield f"default: expected {error}, got {field.default!r}"


def _breaks(older: Schema, newer: Schema) -> Iterator[str]:
    try:
        resolve(older.raw, newer)
    except UnresolvableError as error:
        yield str(error)
        return
    for field in newer.fields:
        if former := older.by_name.get(field.name):
            yield from (f"{field.name}: {text}" for text in _narrowed(former, field))


def _narrowed(former: Field, field: Field) -> Iterator[str]:
    """Yield each declaration that refuses values which the former field allowed."""
    if field.logical_type != former.logical_type or (former.type, field.type) == ("bytes", "string"):
        yield f"expected {former.logical_type or former.type}, got {field.logical_type or field.type}"
    elif former.nullable and not field.nullable:
        yield "expected a union with null, as before"
    elif field.items is not None and former.items is not None:
        yield from _narrowed_items(former, field)
        yield from _narrowed(former.items, field.items)
    elif field.type == "enum":
        if lost := set(former.values or ()) - set(field.values or ()) if field.default_symbol is None else None:
            yield f"symbols: expected {', '.join(sorted(lost))} as before, or a default"
    elif field.type == "string":
        yield from _narrowed_values(former, field) if former.values else _narrowed_text(former, field)
    elif field.type == "bytes" and field.logical_type is None:
        yield from _narrowed_length(former, field)
    else:
        (low, high), (former_low, former_high) = _range(field), _range(former)
        if low > former_low:
            yield f"min: expected at most {former_low}, got {low}"
        if high < former_high:
            yield f"max: expected at least {former_high}, got {high}"


def _narrowed_items(former: Field, field: Field) -> Iterator[str]:
    if field.max_items is not None and field.max_items < (former.max_items or math.inf):
        yield f"max_items: expected {former.max_items or 'none'}, as before, or more; got {field.max_items}"
    if field.key_pattern != former.key_pattern:
        yield f"key_pattern: expected {former.key_pattern.pattern if former.key_pattern else 'none'}, as before"


def _narrowed_values(former: Field, field: Field) -> Iterator[str]:
    for value in former.values or ():
        try:
            converter(field)(value)
        except UnfitError as error:
            yield f"expected to accept {value!r} as before, accepts {error}"


def _narrowed_text(former: Field, field: Field) -> Iterator[str]:
    if field.values is not None:
        yield "one_of: expected none, as before"
    if field.pattern is not None and field.pattern != former.pattern:
        yield f"pattern: expected {former.pattern.pattern if former.pattern else 'none'}, as before, or none"
    yield from _narrowed_length(former, field)


def _narrowed_length(former: Field, field: Field) -> Iterator[str]:
    if field.max_length is not None and field.max_length < (former.max_length or math.inf):
        yield f"max_length: expected {former.max_length or 'none'}, as before, or more; got {field.max_length}"


def _range(field: Field) -> tuple[Decimal, Decimal]:
    """Least and greatest value that type and bounds allow."""
    low, high = Decimal("-Infinity"), Decimal("Infinity")
    if field.type in _INTEGER_BITS:
        limit = Decimal(1 << _INTEGER_BITS[field.type] - 1)
        low, high = -limit, limit - 1
    return (
        low if field.minimum is None else max(low, Decimal(field.minimum)),
        high if field.maximum is None else min(high, Decimal(field.maximum)),
    )
