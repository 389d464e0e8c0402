"""Read the value of a dead letter field by field, up to the first error."""

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
    as_text,
    guessed_form,
    schema_name,
)
from pipeline.schema.metadata import InvalidMetadataError, read_metadata
from pipeline.schema.versions import by_fingerprint
from pipeline.schema.writer_schema import UnresolvableError, check_writer_schema


@dataclass(frozen=True, slots=True)
class Content:
    """The readable part of a value."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    """Physical values by field name, in the order of the writer's schema, unchecked."""
    ends: str = ""
    """Reason why nothing follows; empty if the whole value was read."""
    foreign: bool = False
    """True if the names of the fields come from the value, not from a schema: they may be personal."""


class Reader:
    """Reads the values of one family's dead letters. No value makes it fail.

    Args:
        family: owner of the schemas.
        registry: source of the schemas with Confluent's ids.
    """

    def __init__(self, family: Family, registry: SchemaSource | None = None) -> None:
        self._schemas = {known: schema.raw for known, schema in by_fingerprint(family.schemas).items()}
        self._registry = registry

    def read(self, value: bytes | None) -> Content:
        """Read a value."""
        if not value:
            return Content(ends="null" if value is None else "no bytes")
        form = "" if schema_name(value) else guessed_form(value)
        if form.startswith(("JSON", "text")):
            return _read_text(as_text(value), f"{form}, not framed Avro")
        try:
            schema, body = self._split(value)
            return _read(schema, body)
        except (UnresolvableError, LookupError, UnavailableError) as error:
            return Content(ends=str(error))

    def _split(self, value: bytes) -> tuple[Any, bytes]:
        """Return the writer's schema and the bytes behind the frame."""
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


def _read_text(text: str, ends: str) -> Content:
    """Read the members of a JSON object; anything else is one text."""
    try:
        return Content(read_metadata(text), ends, foreign=True)
    except InvalidMetadataError:
        return Content({"text": text}, ends, foreign=True)
