"""Encode an event as the key and the framed Avro value of a Kafka record, or say what is wrong with it.

The encoder accepts exactly the events that the worker accepts: both check the declarations of the family's newest
schema.
"""

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import fastavro

from pipeline.catalog import Family
from pipeline.errors import ChimeraError
from pipeline.schema.convert import UnfitError, converter
from pipeline.schema.defaults import physical_default
from pipeline.schema.framing import frame_confluent, frame_single_object
from pipeline.schema.resolution import record_layout
from pipeline.schema.versions import VERSION_FIELD

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_KINDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    type(None): "null",
}


class InvalidEventError(ChimeraError):
    """An event that the worker would reject.

    The message names each field at fault and the expected value, never the actual value, which may be personal.
    """


class Message(NamedTuple):
    """Key and value of a Kafka record, as bytes."""

    key: bytes
    value: bytes


class Encoder:
    """Encodes the events of one family with its newest schema.

    Args:
        family: owner of the schema.
        schema_id: the schema's id in a registry, for Confluent framing; None for single-object framing.
    """

    def __init__(self, family: Family, schema_id: int | None = None) -> None:
        schema = family.schema
        self._family = family
        self._schema_id = schema_id
        self._convert = {field.name: converter(field) for field in schema.fields}
        self._defaults = {field.name: physical_default(field) for field in schema.fields if not field.required}
        if VERSION_FIELD in self._defaults:
            self._defaults[VERSION_FIELD] = schema.version
        # This class converts the values, so fastavro gets the schema without logical types.
        layout = record_layout(family.name, {field.name: field.physical for field in schema.fields})
        self._schema = fastavro.parse_schema(layout)

    def encode(self, event: Mapping[str, Any]) -> Message:
        """Encode an event.

        Args:
            event: values by field name, in the forms of `pipeline.schema.convert`. A field with a default may be
                left out; `schema_version` is then the version of the schema.

        Raises:
            InvalidEventError: the worker would reject it.
        """
        values = self._values(event)
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, self._schema, values)
        key, body = str(values[self._family.key]).encode(), stream.getvalue()
        if self._schema_id is None:
            return Message(key, frame_single_object(self._family.schema.fingerprint, body))
        return Message(key, frame_confluent(self._schema_id, body))

    def _values(self, event: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(event, Mapping):
            raise InvalidEventError(f"{self._family.name}: expected an object of fields, got {_kind(event)}")
        values, convert = self._defaults.copy(), self._convert
        try:
            for name, value in event.items():
                values[name] = convert[name](value)
        except (KeyError, UnfitError):
            self._refuse(event)
        if len(values) < len(convert):
            self._refuse(event)
        return values

    def _refuse(self, event: Mapping[str, Any]) -> NoReturn:
        raise InvalidEventError(f"{self._family.name}: {'; '.join(self._problems(event))}") from None

    def _problems(self, event: Mapping[str, Any]) -> Iterator[str]:
        """Yield each problem of an event, in the order of its fields; missing fields are last."""
        for name, value in event.items():
            if name not in self._convert:
                yield f"{_shown_name(name)}: no such field, expected one of {', '.join(self._convert)}"
                continue
            try:
                self._convert[name](value)
            except UnfitError as error:
                yield f"{name}: expected {error}, got {_kind(value)}"
        for name in self._convert:
            if name not in event and name not in self._defaults:
                yield f"{name}: required, but missing"


def _shown_name(name: Any) -> str:
    """Return a name that looks like one; anything else may be a value in the wrong place."""
    return name if isinstance(name, str) and _NAME.fullmatch(name) else f"a name that is {_kind(name)}"


def _kind(value: Any) -> str:
    """Describe a value without showing it."""
    match value:
        case str():
            return f"text of {len(value)} characters"
        case bytes() | bytearray():
            return f"{len(value)} bytes"
        case Mapping():
            return "an object"
    return _KINDS.get(type(value), f"a value of type {type(value).__name__}")
