"""Reads records with fastavro, one at a time, for writer schemas that aren't flat: unions, enums, nested types.

fastavro alone is lax: it accepts an index of -1 and trailing bytes. So the strict walk checks the bytes first.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import fastavro
from fastavro.read import SchemaResolutionError

from pipeline.decode.strict_walk import MalformedError, branch_index, field_ends, record_end
from pipeline.errors import Reason
from pipeline.schema.resolution import record_layout


class Reference:
    """Reads the records of one writer schema.

    Args:
        writer: the checked writer schema.
        fields: name to Avro type, without logical types, of the fields to read; the writer schema has them all.
        refused: name of each union field to the branches that can't be read, by index, with the explanation.
    """

    def __init__(
        self, writer: Any, fields: Mapping[str, Any], refused: Mapping[str, Mapping[int, str]] | None = None
    ) -> None:
        self._refused = {name: branches for name, branches in (refused or {}).items() if branches}
        self._named: dict[str, Any] = {}
        self._writer: Any = fastavro.parse_schema(_physical(writer), self._named, _write_hint=False)
        self._reader = fastavro.parse_schema(record_layout(writer["name"], fields))

    def read(self, body: bytes) -> Any:
        """Read the fields of one record, without logical types; declared bounds aren't checked.

        Args:
            body: the record, without framing.

        Raises:
            MalformedError: the bytes aren't Avro of the writer schema, or a value doesn't fit its field's type.
        """
        self._check_branches(body, [0, *field_ends(self._writer, self._named, body)])
        try:
            return fastavro.schemaless_reader(io.BytesIO(body), self._writer, self._reader)
        except UnicodeDecodeError:
            raise MalformedError(Reason.INVALID_UTF8, "expected UTF-8") from None
        except SchemaResolutionError:
            raise MalformedError(Reason.WRONG_SCHEMA, "a value that can't be read as its field's type") from None

    def _check_branches(self, body: bytes, starts: Sequence[int]) -> None:
        """Refuse a value of a union's branch that can't be read as its field."""
        for field, start in zip(self._writer["fields"], starts, strict=False):
            branches = self._refused.get(field["name"])
            if branches and (problem := branches.get(branch_index(body, start))):
                raise MalformedError(Reason.WRONG_SCHEMA, problem)

    def read_partly(self, body: bytes) -> tuple[dict[str, Any], MalformedError | None]:
        """Read the written fields of one record up to the first malformed one, and return its problem too.

        Bytes that aren't UTF-8 are escaped.
        """
        ends, problem = [0], None
        try:
            ends.extend(field_ends(self._writer, self._named, body))
        except MalformedError as error:
            problem = error
        whole: Any = {**self._writer, "fields": self._writer["fields"][: len(ends) - 1]}
        stream = io.BytesIO(body[: ends[-1]])
        values: Any = fastavro.schemaless_reader(stream, whole, None, handle_unicode_errors="backslashreplace")
        return values, problem

    def end_of(self, bodies: bytes, start: int) -> int:
        """Return the end of the record that begins at `start` of several records, one right after the other.

        Raises:
            MalformedError: it can't be read up to its end.
        """
        return record_end(self._writer, self._named, bodies, start)

    def flatten(self, body: bytes) -> bytes:
        """Encode the fields alone, in their order.

        Raises:
            MalformedError: as `read`.
        """
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, self._reader, self.read(body))
        return stream.getvalue()


def _physical(schema: Any) -> Any:
    """The schema without logical types, so that fastavro doesn't convert values."""
    if isinstance(schema, dict):
        return {key: _physical(value) for key, value in schema.items() if key != "logicalType"}
    return [_physical(branch) for branch in schema] if isinstance(schema, list) else schema
