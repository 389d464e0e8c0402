"""The columnar decoder's oracle: fastavro reads and resolves, and each check is written a second time.

It handles one record at a time, in plain Python. It shares only the declared fields with the columnar path, and the
strict walk, which flat records don't use there.
"""

import io
import math
import uuid
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from itertools import islice
from typing import Any

import fastavro
import numpy as np
from fastavro.read import SchemaResolutionError

from pipeline.columns import WIDE, Column, DictionaryColumn, ItemsColumn, NullableColumn, Rows
from pipeline.decode.strict_walk import MalformedError, field_ends
from pipeline.errors import Reason
from pipeline.schema.fields import Field
from pipeline.schema.versions import Schema

Row = dict[str, Any]


def read(writer: Any, newest: Schema, body: bytes) -> Row | Reason:
    """Return the row that a record becomes, with values as columns hold them, or the reason of its rejection.

    Args:
        writer: the writer schema, as parsed JSON.
        newest: the schema that the record is resolved to and checked against.
        body: the record, without framing.
    """
    named: dict[str, Any] = {}
    parsed: Any = fastavro.parse_schema(without_logical_types(writer), named, _write_hint=False)
    reader = fastavro.parse_schema(without_logical_types(newest.raw), _write_hint=False)
    try:
        _require_meanings(newest, [(field["name"], field["type"]) for field in parsed["fields"]])
        starts = [0, *field_ends(parsed, named, body)]
        _require_meanings(newest, [_taken(body, *pair) for pair in zip(parsed["fields"], starts, strict=False)])
        record: Any = fastavro.schemaless_reader(io.BytesIO(body), parsed, reader)
        return {field.name: _checked(field, record[field.name]) for field in newest.fields}
    except MalformedError as error:
        return error.reason
    except SchemaResolutionError:
        return Reason.WRONG_SCHEMA
    except UnicodeError:
        return Reason.INVALID_UTF8


def _taken(body: bytes, field: Any, start: int) -> tuple[str, Any]:
    """Name of a field, and its type or the branch of its union that the bytes take; it has less than 64 branches."""
    declared = field["type"]
    return field["name"], declared[body[start] >> 1] if isinstance(declared, list) else declared


def _require_meanings(newest: Schema, written: Sequence[tuple[str, Any]]) -> None:
    """Require that each written type, or a branch of it, has the meaning of the newest schema's field."""
    for name, declared in written:
        field = newest.by_name.get(name)
        branches = declared if isinstance(declared, list) else [declared]
        if field is not None:
            plain = field.logical_type in {None, "uuid"}
            readable = _READABLE.get(field.type, {field.type}) if plain else {field.type}
            readable = readable | ({"null"} if field.nullable else set())
            _require(any(_kind(branch) in readable for branch in branches), Reason.WRONG_SCHEMA)


def _kind(branch: Any) -> str:
    return str(branch["type"] if isinstance(branch, dict) else branch)


_READABLE = {
    "boolean": {"boolean"},
    "int": {"int"},
    "long": {"long", "int"},
    "float": {"float", "int", "long"},
    "double": {"double", "float", "int", "long"},
    "string": {"string", "bytes"},
    "bytes": {"bytes", "string"},
}


def without_logical_types(schema: Any) -> Any:
    """The schema without logical types."""
    if isinstance(schema, dict):
        return {key: without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    return [without_logical_types(branch) for branch in schema] if isinstance(schema, list) else schema


def rows_of(rows: Rows) -> list[Row]:
    """Convert columns to one dict per row, for comparison with `read`."""
    columns = {name: values_of(column) for name, column in rows.columns.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def values_of(column: Column) -> list[Any]:
    """Convert a column to one Python value per row; a map is a dict, null is None."""
    match column:
        case list():
            return list(column)
        case DictionaryColumn():
            return list(column.to_list())
        case NullableColumn(present, values):
            pairs = zip(present.tolist(), values_of(values), strict=True)
            return [value if there else None for there, value in pairs]
        case ItemsColumn(lengths, items, keys):
            members = iter(values_of(items) if keys is None else zip(values_of(keys), values_of(items), strict=True))
            lists = [list(islice(members, length)) for length in lengths.tolist()]
            return lists if keys is None else list(map(dict, lists))
        case np.ndarray() if column.dtype == WIDE:
            return [(high << 64) | low for low, high in column.tolist()]
    assert isinstance(column, np.ndarray)
    return list(column.tolist())


def _checked(field: Field, value: Any) -> Any:
    if value is None:
        return None
    if field.items is not None:
        _require(field.max_items is None or len(value) <= field.max_items, Reason.TOO_LONG)
        if field.type == "array":
            return [_checked(field.items, item) for item in value]
        key = Field(field.name, "string", pattern=field.key_pattern)
        return {_string(key, name): _checked(field.items, member) for name, member in value.items()}
    checks: dict[str, Callable[[Field, Any], Any]] = {
        "uuid": _uuid,
        "decimal": _decimal,
        "string": _string,
        "bytes": _bytes,
        "float": _single,
        "double": _double,
        "int": _integer,
        "long": _integer,
        **dict.fromkeys(("timestamp-millis", "timestamp-micros", "date", "time-millis", "time-micros"), _integer),
        "enum": lambda _, symbol: symbol.encode(),
        "fixed": _bytes,
        "boolean": _boolean,
    }
    return checks[field.logical_type or field.type](field, value)


def _require(condition: bool, reason: Reason) -> None:
    if not condition:
        raise MalformedError(reason, "")


def _require_within(value: Any, low: Any, high: Any) -> None:
    _require((low is None or value >= low) and (high is None or value <= high), Reason.OUT_OF_BOUNDS)


def _octets(value: Any) -> bytes:
    """The bytes of a value; fastavro leaves the default of a bytes field as the text in JSON."""
    return value.encode("latin-1") if isinstance(value, str) else bytes(value)


def _bytes(field: Field, value: Any) -> bytes:
    octets = _octets(value)
    _require(field.max_length is None or len(octets) <= field.max_length, Reason.TOO_LONG)
    return octets


def _boolean(_field: Field, value: bool) -> bool:
    return value


def _integer(field: Field, value: int) -> int:
    _require_within(value, field.minimum, field.maximum)
    return value


def _double(field: Field, value: float) -> float:
    _require(math.isfinite(value), Reason.NOT_FINITE)
    _require_within(value, field.minimum, field.maximum)
    return value


def _single(field: Field, value: float) -> float:
    """Check a float against the floats nearest to the declared bounds."""
    _require(math.isfinite(value), Reason.NOT_FINITE)
    nearest = float(np.float32(value))
    with np.errstate(over="ignore"):
        low, high = (None if bound is None else float(np.float32(bound)) for bound in (field.minimum, field.maximum))
    _require_within(nearest, low, high)
    return nearest


def _decimal(field: Field, value: Any) -> int:
    octets = _octets(value)
    _require(octets != b"", Reason.MALFORMED)
    unscaled = int.from_bytes(octets, "big", signed=True)
    _require(len(str(abs(unscaled))) <= field.precision, Reason.OUT_OF_BOUNDS)
    _require_within(Context(prec=100).scaleb(Decimal(unscaled), -field.scale), field.minimum, field.maximum)
    return unscaled


def _uuid(_field: Field, text: str) -> bytes:
    _require("\0" not in text, Reason.NUL_BYTE)
    dashes = [at for at, character in enumerate(text) if character == "-"]
    _require(len(text) == 36 and dashes == [8, 13, 18, 23], Reason.INVALID_UUID)
    _require(set(text) <= set("0123456789abcdefABCDEF-"), Reason.INVALID_UUID)
    return uuid.UUID(text).bytes


def _string(field: Field, text: str) -> bytes:
    _require(field.max_length is None or len(text.encode()) <= field.max_length, Reason.TOO_LONG)
    _require("\0" not in text or text in (field.values or ()), Reason.NUL_BYTE)
    _require(field.values is None or text in field.values, Reason.NOT_IN_SET)
    _require(field.pattern is None or field.pattern.fullmatch(text) is not None, Reason.PATTERN_MISMATCH)
    return text.encode()
