"""The Avro schemas: every version of every family, with the bounds and closed sets their fields declare.

Units: `min` and `max` are in the field's own unit (milliseconds for `ts`, a decimal string for money), `max_length` is
in UTF-8 bytes, `pattern` is a Python regular expression that the whole string must match.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import fastavro
import fastavro.schema
import orjson

from pipeline.errors import ConfigError

FILE_NAME = re.compile(r"^(?P<family>[a-z][a-z0-9_]*)\.v(?P<version>[1-9][0-9]*)\.avsc$")
PRIMITIVES = frozenset({"boolean", "int", "long", "float", "double", "string", "bytes"})
LOGICAL_TYPES = {"uuid": "string", "decimal": "bytes", "timestamp-millis": "long"}
NUMERIC = frozenset({"int", "long", "float", "double"})
MAX_DECIMAL_PRECISION = 18  # what a 64-bit unscaled value holds
NO_DEFAULT: Final[Any] = object()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a family's schema, with what a valid value must satisfy."""

    name: str
    type: str
    """Avro's primitive type."""
    logical_type: str | None = None
    default: Any = NO_DEFAULT
    minimum: int | float | Decimal | None = None
    maximum: int | float | Decimal | None = None
    pattern: re.Pattern[str] | None = None
    values: tuple[str, ...] | None = None
    max_length: int | None = None
    precision: int = 0
    scale: int = 0

    @property
    def required(self) -> bool:
        """Whether a record must bring the field itself."""
        return self.default is NO_DEFAULT


@dataclass(frozen=True)
class Schema:
    """One version of a family's schema."""

    family: str
    version: int
    file: Path
    raw: Mapping[str, Any]
    """The .avsc as it stands."""
    parsed: Any
    """What fastavro reads and writes with."""
    fields: tuple[Field, ...]
    fingerprint: bytes
    """CRC-64-AVRO of the parsing canonical form, 8 bytes little-endian, as single-object framing carries it."""

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """Field of a name."""
        return {field.name: field for field in self.fields}


def fingerprint(schema: Any) -> bytes:
    """CRC-64-AVRO fingerprint of a schema, 8 bytes little-endian (Avro specification, "Single-object encoding")."""
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    # fastavro's own hex digits are the 64-bit number's little-endian bytes, which is what the frame carries.
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


def load_schemas(directory: Path) -> dict[str, tuple[Schema, ...]]:
    """All versions of all families in a directory, each family's oldest first.

    Raises:
        ConfigError: one line naming file, key and what was expected.
    """
    families: dict[str, list[Schema]] = {}
    files = sorted(directory.glob("*.avsc"))
    if not files:
        raise ConfigError(f"{directory}: no schemas; expected files named <family>.v<N>.avsc")
    for path in files:
        schema = load_schema(path)
        families.setdefault(schema.family, []).append(schema)
    for family, versions in families.items():
        versions.sort(key=lambda schema: schema.version)
        missing = set(range(1, versions[-1].version)) - {schema.version for schema in versions}
        if missing:
            raise ConfigError(f"{directory}/{family}.v{min(missing)}.avsc: missing; every version is kept")
    return {family: tuple(versions) for family, versions in families.items()}


def load_schema(path: Path) -> Schema:
    """One .avsc file.

    Raises:
        ConfigError: not readable, not JSON, not a flat Avro record, or an attribute that makes no sense.
    """
    match = FILE_NAME.match(path.name)
    if not match:
        raise ConfigError(f"{path}: expected a name of the form <family>.v<N>.avsc")
    try:
        raw = orjson.loads(path.read_bytes())
        parsed = fastavro.parse_schema(raw, _write_hint=False)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None
    except (fastavro.schema.SchemaParseException, fastavro.schema.UnknownType) as error:
        raise ConfigError(f"{path}: not an Avro schema: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not an Avro schema: missing or misplaced {error}") from None
    if not isinstance(raw, dict) or raw.get("type") != "record" or not isinstance(raw.get("fields"), list):
        raise ConfigError(f"{path}: type: expected a record with fields")
    fields = tuple(_field(path, field) for field in raw["fields"])
    names = [field.name for field in fields]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: {name}: expected one field of that name, got {names.count(name)}")
    return Schema(match["family"], int(match["version"]), path, raw, parsed, fields, fingerprint(raw))


def _field(path: Path, raw: Mapping[str, Any]) -> Field:
    where = f"{path}: {raw['name']}"
    declared = raw["type"] if isinstance(raw["type"], dict) else {"type": raw["type"]}
    avro_type, logical_type = declared["type"], declared.get("logicalType")
    if not isinstance(avro_type, str) or avro_type not in PRIMITIVES:
        raise ConfigError(f"{where}.type: expected one of {', '.join(sorted(PRIMITIVES))}, got {avro_type!r}")
    if logical_type is not None and LOGICAL_TYPES.get(logical_type) != avro_type:
        expected = ", ".join(f"{name} on {base}" for name, base in LOGICAL_TYPES.items())
        raise ConfigError(f"{where}.logicalType: expected {expected}; got {logical_type} on {avro_type}")
    precision, scale = declared.get("precision", 0), declared.get("scale", 0)
    if logical_type == "decimal" and not 0 < precision <= MAX_DECIMAL_PRECISION:
        raise ConfigError(f"{where}.precision: expected 1 to {MAX_DECIMAL_PRECISION}, got {precision!r}")
    textual = avro_type == "string" and logical_type is None
    numeric = avro_type in NUMERIC or logical_type == "decimal"
    for key in ("pattern", "values", "max_length"):
        if key in raw and not textual:
            raise ConfigError(f"{where}.{key}: only a plain string can have it, this is {logical_type or avro_type}")
    for key in ("min", "max"):
        if key in raw and not numeric:
            raise ConfigError(f"{where}.{key}: only a number can have it, this is {logical_type or avro_type}")
    minimum, maximum = (_bound(where, key, raw, logical_type) for key in ("min", "max"))
    if minimum is not None and maximum is not None and minimum > maximum:
        raise ConfigError(f"{where}.min: expected at most max, {maximum}, got {minimum}")
    return Field(
        name=raw["name"],
        type=avro_type,
        logical_type=logical_type,
        default=raw.get("default", NO_DEFAULT),
        minimum=minimum,
        maximum=maximum,
        pattern=_pattern(where, raw),
        values=_values(where, raw),
        max_length=_max_length(where, raw),
        precision=precision,
        scale=scale,
    )


def _bound(where: str, key: str, raw: Mapping[str, Any], logical_type: str | None) -> int | float | Decimal | None:
    if key not in raw:
        return None
    bound = raw[key]
    if logical_type == "decimal":
        with suppress(InvalidOperation):
            if isinstance(bound, str) and (number := Decimal(bound)).is_finite():
                return number
        raise ConfigError(f"{where}.{key}: expected a decimal number as a string, got {bound!r}")
    if isinstance(bound, bool) or not isinstance(bound, (int, float)):
        raise ConfigError(f"{where}.{key}: expected a number, got {bound!r}")
    return bound


def _pattern(where: str, raw: Mapping[str, Any]) -> re.Pattern[str] | None:
    if "pattern" not in raw:
        return None
    try:
        return re.compile(raw["pattern"])
    except (re.error, TypeError) as error:
        raise ConfigError(f"{where}.pattern: expected a regular expression: {error}") from None


def _values(where: str, raw: Mapping[str, Any]) -> tuple[str, ...] | None:
    values = raw.get("values")
    if values is None:
        return None
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"{where}.values: expected a list of strings, got {values!r}")
    return tuple(values)


def _max_length(where: str, raw: Mapping[str, Any]) -> int | None:
    length = raw.get("max_length")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise ConfigError(f"{where}.max_length: expected a whole number of bytes, got {length!r}")
    return length
