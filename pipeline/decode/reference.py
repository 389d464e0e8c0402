"""Reads records with fastavro, one at a time: for writers' schemas that aren't flat (unions, enums, nested types).

fastavro alone is lax (it accepts an index of -1 and trailing bytes), so the form of the bytes is walked first, by the
specification.
"""

import io
from collections.abc import Mapping
from typing import Any

import fastavro
from fastavro.read import SchemaResolutionError

from pipeline.decode.strict_walk import MalformedError, field_ends, walk_strictly
from pipeline.errors import Reason


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
        walk_strictly(self._writer, self._named, body)
        try:
            return fastavro.schemaless_reader(io.BytesIO(body), self._writer, self._reader)
        except UnicodeDecodeError:
            raise MalformedError(Reason.INVALID_UTF8, "expected UTF-8") from None
        except SchemaResolutionError:
            raise MalformedError(Reason.WRONG_SCHEMA, "a value that can't be read as its field's type") from None

    def read_partly(self, body: bytes) -> tuple[dict[str, Any], MalformedError | None]:
        """The fields of one record as they were written, up to the first that is not in form; and what is wrong there.

        What isn't UTF-8 is escaped.
        """
        ends, problem = [0], None
        try:
            ends.extend(field_ends(self._writer, self._named, body))
        except MalformedError as error:
            problem = error
        writer: Any = self._writer
        whole = {**writer, "fields": writer["fields"][: len(ends) - 1]}
        stream = io.BytesIO(body[: ends[-1]])
        values: Any = fastavro.schemaless_reader(stream, whole, None, handle_unicode_errors="backslashreplace")
        return values, problem

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
