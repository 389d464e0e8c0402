"""Reads records with fastavro, one at a time: for writers' schemas that aren't flat (unions, enums, nested types).

fastavro alone is lax (it accepts an index of -1 and trailing bytes), so the form of the bytes is walked first, by the
specification.
"""

import io
from collections.abc import Mapping
from typing import Any

import fastavro
from fastavro.read import SchemaResolutionError

from pipeline.errors import Reason
from pipeline.wellformed import MalformedError, check_wellformed


class Reference:
    """Reads the records of one writer's schema.

    Args:
        writer: its schema, vetted.
        fields: name and primitive type of the fields to read, which it has.
    """

    def __init__(self, writer: Any, fields: Mapping[str, str]) -> None:
        self._named: dict[str, Any] = {}
        self._writer = fastavro.parse_schema(_physical(writer), self._named, _write_hint=False)
        declared = [{"name": name, "type": avro_type} for name, avro_type in fields.items()]
        self._reader = fastavro.parse_schema({**writer, "fields": declared})

    def read(self, body: bytes) -> Any:
        """The fields of one record, as values of their primitive types; what they declare isn't checked.

        Raises:
            MalformedError: the bytes aren't Avro of the writer's schema, or hold what the fields have no place for.
        """
        check_wellformed(self._writer, self._named, body)
        try:
            return fastavro.schemaless_reader(io.BytesIO(body), self._writer, self._reader)
        except UnicodeDecodeError:
            raise MalformedError(Reason.INVALID_UTF8, "expected UTF-8") from None
        except SchemaResolutionError:
            raise MalformedError(Reason.WRONG_SCHEMA, "a value that can't be read as its field's type") from None

    def flatten(self, body: bytes) -> bytes:
        """The encoding of the fields alone, in their order.

        Raises:
            MalformedError: as `read`.
        """
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, self._reader, self.read(body))
        return stream.getvalue()


def _physical(schema: Any) -> Any:
    """The schema without its logical types, so that values stay as they are written."""
    if isinstance(schema, dict):
        return {key: _physical(value) for key, value in schema.items() if key != "logicalType"}
    return [_physical(branch) for branch in schema] if isinstance(schema, list) else schema
