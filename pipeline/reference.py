"""Reads records with fastavro, one at a time: for writers' schemas that aren't flat (unions, enums, nested types).

fastavro alone is lax (it accepts an index of -1 and trailing bytes) and open to attack (deep recursion, huge arrays of
nothing), so the form of the bytes is walked first, by the specification.
"""

import io
from typing import Any

import fastavro
import fastavro.schema

from pipeline.errors import Reason
from pipeline.resolve import UnresolvableError, default_of
from pipeline.schemas import Schema
from pipeline.wellformed import MalformedError, check_wellformed


class Reference:
    """Translates records of one writer's schema into the newest one.

    Args:
        writer: its schema as parsed JSON; it must be resolvable to the reader's.
        reader: the newest schema.

    Raises:
        UnresolvableError: the writer's schema isn't an Avro schema.
    """

    def __init__(self, writer: Any, reader: Schema) -> None:
        self._named: dict[str, Any] = {}
        try:
            self._writer = fastavro.parse_schema(_physical(writer), self._named, _write_hint=False)
        except (fastavro.schema.SchemaParseException, fastavro.schema.UnknownType, KeyError, TypeError) as error:
            raise UnresolvableError(f"not an Avro schema: {error}") from None
        written = {field["name"] for field in writer["fields"]}
        self._defaults = {field.name: default_of(field) for field in reader.fields if not field.required}
        fields = [{"name": field.name, "type": field.type} for field in reader.fields]
        record = {"type": "record", "name": writer["name"].rpartition(".")[2]}
        self._common = fastavro.parse_schema(record | {"fields": [f for f in fields if f["name"] in written]})
        self._newest = fastavro.parse_schema(record | {"fields": fields})

    def read(self, body: bytes) -> dict[str, Any]:
        """The fields of the newest schema in Avro's primitive types; what they declare isn't checked.

        Raises:
            MalformedError: the bytes aren't Avro of the writer's schema, or hold what the newest one has no place for.
        """
        check_wellformed(self._writer, self._named, body)
        try:
            row: Any = fastavro.schemaless_reader(io.BytesIO(body), self._writer, self._common)
        except UnicodeDecodeError:
            raise MalformedError(Reason.INVALID_UTF8, "expected UTF-8") from None
        except fastavro.read.SchemaResolutionError:
            raise MalformedError(
                Reason.WRONG_SCHEMA, "a value of a type that can't be read as the newest schema's"
            ) from None
        return {**self._defaults, **row}

    def translate(self, body: bytes) -> bytes:
        """The record as a writer of the newest schema would have written it.

        Raises:
            MalformedError: as `read`.
        """
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._newest, self.read(body))
        return out.getvalue()


def _physical(schema: Any) -> Any:
    """The schema without its logical types, so that values stay as they are written."""
    if isinstance(schema, dict):
        return {key: _physical(value) for key, value in schema.items() if key != "logicalType"}
    return [_physical(branch) for branch in schema] if isinstance(schema, list) else schema
