"""Reads as much of a dead letter's value as can be read: field by field, up to what is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.catalog import Family
from pipeline.decode.decoder import SchemaSource
from pipeline.decode.reference import Reference
from pipeline.errors import UnavailableError
from pipeline.schema.framing import (
    CONFLUENT_HEADER_BYTES,
    SINGLE_OBJECT_HEADER_BYTES,
    SINGLE_OBJECT_MARKER,
    schema_name,
)
from pipeline.schema.writer_schema import UnresolvableError, check_writer_schema


@dataclass(frozen=True, slots=True)
class Content:
    """What could be read of a value."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    """In their order, as they were written: physical values, unchecked."""
    ends: str = ""
    """Why nothing follows; empty when all was read."""


class Reader:
    """Reads the values of one family's dead letters. Nothing that a value may hold makes it fail.

    Args:
        family: its schemas.
        registry: knows the schemas behind Confluent's ids.
    """

    def __init__(self, family: Family, registry: SchemaSource | None = None) -> None:
        self._schemas = {schema.fingerprint: schema.raw for schema in family.schemas}
        self._registry = registry

    def read(self, value: bytes | None) -> Content:
        """What it holds."""
        if not value:
            return Content(ends="null" if value is None else "no bytes")
        try:
            schema, body = self._split(value)
            return _read(schema, body)
        except (UnresolvableError, LookupError, UnavailableError) as error:
            return Content(ends=str(error))

    def _split(self, value: bytes) -> tuple[Any, bytes]:
        """The writer's schema, and what follows the frame."""
        name = schema_name(value)
        if name and value.startswith(SINGLE_OBJECT_MARKER):
            fingerprint = value[len(SINGLE_OBJECT_MARKER) : SINGLE_OBJECT_HEADER_BYTES]
            if fingerprint not in self._schemas:
                raise LookupError(f"{name}: no version of the family's schema has it")
            return self._schemas[fingerprint], value[SINGLE_OBJECT_HEADER_BYTES:]
        if name and self._registry:
            return self._registry.schema(int(name.removeprefix("id:"))), value[CONFLUENT_HEADER_BYTES:]
        raise LookupError(f"{name}: no registry is set to ask" if name else "no frame that names a schema")


def _read(schema: Any, body: bytes) -> Content:
    checked = check_writer_schema(schema)
    if not isinstance(checked, Mapping) or checked["type"] != "record":
        raise UnresolvableError("expected a record with fields")
    fields, problem = Reference(checked, {}).read_partly(body)
    return Content(fields, str(problem) if problem else "")
