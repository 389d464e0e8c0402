"""Encode an event as the key and the framed Avro value of a Kafka record, or say what is wrong with it.

The encoder accepts exactly the events that the worker accepts: both check the declarations of the family's newest
schema.
"""

import io
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import fastavro

from pipeline.catalog import Family
from pipeline.errors import ChimeraError
from pipeline.schema.convert import UnfitError, converter
from pipeline.schema.fields import Field
from pipeline.schema.framing import frame_confluent, frame_single_object

_SHOWN_CHARACTERS = 60


class InvalidEventError(ChimeraError):
    """An event that the worker would reject; the message names the field, the expected and the actual value."""


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
        self._defaults = {field.name: _default(field) for field in schema.fields if not field.required}
        # This class converts the values, so fastavro gets the schema without logical types.
        fields = [{"name": field.name, "type": field.type} for field in schema.fields]
        self._schema = fastavro.parse_schema({"type": "record", "name": family.name, "fields": fields})

    def encode(self, event: Mapping[str, Any]) -> Message:
        """Encode an event.

        Args:
            event: values by field name, in the forms of `pipeline.schema.convert`. A field with a default may be
                left out.

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
            raise InvalidEventError(f"{self._family.name}: expected an object of fields, got {_shown(event)}")
        values, convert = self._defaults.copy(), self._convert
        name, value = "", None
        try:
            for name, value in event.items():
                values[name] = convert[name](value)
        except KeyError:
            self._refuse(name, f"no such field; expected {', '.join(convert)}")
        except UnfitError as error:
            self._refuse(name, f"expected {error}, got {_shown(value)}")
        if len(values) < len(convert):
            self._refuse(next(field for field in convert if field not in values), "required, but missing")
        return values

    def _refuse(self, name: str, problem: str) -> NoReturn:
        raise InvalidEventError(f"{self._family.name}: {name}: {problem}") from None


def _default(field: Field) -> Any:
    """Return a field's default. Avro writes the default of a bytes field as text, one character per byte."""
    return field.default.encode("latin-1") if field.type == "bytes" else field.default


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
