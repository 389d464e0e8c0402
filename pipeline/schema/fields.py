"""The fields of an Avro schema, with their bounds and closed sets.

`min` and `max` are in the field's own unit (milliseconds for `ts`, a decimal string for money), `max_length` is in
UTF-8 bytes, and `pattern` is a Python regular expression that must match the whole string.
"""

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from pipeline.errors import ConfigError
from pipeline.schema.privacy import Keep, Metadata, Treatment, UserAgent, read_treatment
from pipeline.validation_messages import unknown_key_message

PRIMITIVES = frozenset({"boolean", "int", "long", "float", "double", "string", "bytes"})
LOGICAL_TYPES = {"uuid": "string", "decimal": "bytes", "timestamp-millis": "long"}
NUMERIC = frozenset({"int", "long", "float", "double"})
MAX_DECIMAL_PRECISION = 18  # decimal digits of a 64-bit unscaled value
NO_DEFAULT: Final[Any] = object()
ONE_OF = "one_of"
FORMER_ONE_OF = "values"
"""Former name of `one_of`. It is Avro's word for the type of a map's values, so libraries keep it."""

_TEXT_KEYS = ("pattern", ONE_OF, FORMER_ONE_OF, "max_length", "privacy")
_KEYS = ("name", "type", "doc", "default", "order", "aliases", "min", "max", *_TEXT_KEYS)
_TYPE_KEYS = ("type", "logicalType")
_DECIMAL_KEYS = (*_TYPE_KEYS, "precision", "scale")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a family's schema, with the conditions for a valid value."""

    name: str
    type: str
    """Avro primitive type."""
    logical_type: str | None = None
    default: Any = NO_DEFAULT
    minimum: int | float | Decimal | None = None
    maximum: int | float | Decimal | None = None
    pattern: re.Pattern[str] | None = None
    values: tuple[str, ...] | None = None
    max_length: int | None = None
    precision: int = 0
    scale: int = 0
    privacy: Treatment | None = None

    @property
    def undeclared(self) -> bool:
        """True for a string that accepts open text but declares no treatment of personal data."""
        closed = self.logical_type is not None or self.values is not None
        return self.type == "string" and not closed and self.privacy is None

    @property
    def required(self) -> bool:
        """True if the field has no default, so that each record must contain it."""
        return self.default is NO_DEFAULT


def read_field(where: str, position: int, raw: Any) -> Field:
    """Read one field of an .avsc.

    Args:
        where: the file, for messages.
        position: index of the field in the record, from 0; identifies the field in messages until its name is known.
        raw: the declaration, as parsed JSON.

    Raises:
        ConfigError: one line that names file, field, attribute and expected value.
    """
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: fields[{position}]: expected an object with name and type, got {raw!r}")
    name = raw.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: fields[{position}].name: expected letters, digits and _, got {name!r}")
    where = f"{where}: {name}"
    check_keys(where, raw, _KEYS)
    avro_type, logical_type, precision, scale = _type(where, raw.get("type"))
    _check_applicable(where, raw, avro_type, logical_type)
    minimum, maximum = (_bound(where, key, raw, logical_type) for key in ("min", "max"))
    if minimum is not None and maximum is not None and minimum > maximum:
        raise ConfigError(f"{where}.min: expected at most max, {maximum}, got {minimum}")
    return Field(
        name=name,
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
        privacy=_privacy(where, raw),
    )


def check_keys(where: str, raw: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse an unknown attribute: Avro ignores it, so that a misspelt bound would have no effect.

    Args:
        where: place of the attributes, for messages.
        raw: the attributes.
        known: the known names.

    Raises:
        ConfigError: the first unknown attribute, and the known ones.
    """
    for key in raw:
        if key not in known:
            raise ConfigError(f"{where}.{key}: {unknown_key_message(known, key)}")


def _type(where: str, raw: Any) -> tuple[str, str | None, int, int]:
    """Avro type, logical type, precision and scale; both numbers are 0 unless it is a decimal."""
    declared = raw if isinstance(raw, dict) else {"type": raw}
    avro_type, logical_type = declared.get("type"), declared.get("logicalType")
    if not isinstance(avro_type, str) or avro_type not in PRIMITIVES:
        raise ConfigError(f"{where}.type: expected one of {', '.join(sorted(PRIMITIVES))}, got {avro_type!r}")
    if "logicalType" in declared and (
        not isinstance(logical_type, str) or LOGICAL_TYPES.get(logical_type) != avro_type
    ):
        expected = ", ".join(f"{name} on {base}" for name, base in LOGICAL_TYPES.items())
        raise ConfigError(f"{where}.logicalType: expected {expected}; got {logical_type!r} on {avro_type}")
    if logical_type != "decimal":
        check_keys(f"{where}.type", declared, _TYPE_KEYS)
        return avro_type, logical_type, 0, 0
    check_keys(f"{where}.type", declared, _DECIMAL_KEYS)
    precision = _whole(f"{where}.precision", declared.get("precision"), 1, MAX_DECIMAL_PRECISION)
    return avro_type, logical_type, precision, _whole(f"{where}.scale", declared.get("scale", 0), 0, precision)


def _check_applicable(where: str, raw: Mapping[str, Any], avro_type: str, logical_type: str | None) -> None:
    textual = avro_type == "string" and logical_type is None
    numeric = avro_type in NUMERIC or logical_type == "decimal"
    for key in _TEXT_KEYS:
        if key in raw and not textual:
            raise ConfigError(f"{where}.{key}: expected on a plain string only, this is {logical_type or avro_type}")
    for key in ("min", "max"):
        if key in raw and not numeric:
            raise ConfigError(f"{where}.{key}: expected on a number only, this is {logical_type or avro_type}")
    closed = _closed_set_key(raw)
    if ONE_OF in raw and FORMER_ONE_OF in raw:
        raise ConfigError(f"{where}.{FORMER_ONE_OF}: expected none beside {ONE_OF}, its newer name")
    if closed in raw and "pattern" in raw:
        raise ConfigError(f"{where}.pattern: expected none beside {closed}, because it defines the field completely")


def _closed_set_key(raw: Mapping[str, Any]) -> str:
    return FORMER_ONE_OF if FORMER_ONE_OF in raw else ONE_OF


def _bound(where: str, key: str, raw: Mapping[str, Any], logical_type: str | None) -> int | float | Decimal | None:
    if key not in raw:
        return None
    bound = raw[key]
    if logical_type == "decimal":
        with suppress(InvalidOperation):
            if isinstance(bound, str) and (number := Decimal(bound)).is_finite():
                return number
        raise ConfigError(f"{where}.{key}: expected a decimal number as a string, got {bound!r}")
    if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not Decimal(bound).is_finite():
        raise ConfigError(f"{where}.{key}: expected a number, got {bound!r}")
    return bound


def _pattern(where: str, raw: Mapping[str, Any]) -> re.Pattern[str] | None:
    if "pattern" not in raw:
        return None
    if not isinstance(raw["pattern"], str):
        raise ConfigError(f"{where}.pattern: expected a regular expression, got {raw['pattern']!r}")
    try:
        return re.compile(raw["pattern"])
    except re.error as error:
        raise ConfigError(f"{where}.pattern: expected a regular expression: {error}") from None


def _values(where: str, raw: Mapping[str, Any]) -> tuple[str, ...] | None:
    key = _closed_set_key(raw)
    if key not in raw:
        return None
    values = raw[key]
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"{where}.{key}: expected a list of strings, got {values!r}")
    return tuple(values)


def _max_length(where: str, raw: Mapping[str, Any]) -> int | None:
    return _whole(f"{where}.max_length", raw["max_length"], 1) if "max_length" in raw else None


def _privacy(where: str, raw: Mapping[str, Any]) -> Treatment | None:
    if "privacy" not in raw:
        return None
    if (closed := _closed_set_key(raw)) in raw:
        raise ConfigError(f"{where}.privacy: expected none beside {closed}, which holds nothing personal")
    treatment = read_treatment(f"{where}.privacy", raw["privacy"])
    if isinstance(treatment, Keep) and "pattern" not in raw:
        raise ConfigError(f'{where}.privacy: expected a pattern beside "keep", because free text can\'t be kept')
    if isinstance(treatment, (UserAgent, Metadata)) and "pattern" in raw:
        raise ConfigError(f"{where}.pattern: expected none on a user agent or metadata")
    return treatment


def _whole(where: str, value: Any, least: int, most: int = 2**31 - 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{where}: expected a whole number, {least} to {most}, got {value!r}")
    return value
