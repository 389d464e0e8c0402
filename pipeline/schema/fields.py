"""The fields of an Avro schema, with their bounds and closed sets.

`min` and `max` are in the field's own unit (milliseconds for `ts`, days for a date, a decimal string for money),
`max_length` is in bytes, of UTF-8 for text, and `pattern` is a Python regular expression that must match the whole
string. On a list, a map or a field that may be null, they hold for each item, each value of the map, or the value.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from pipeline.errors import ConfigError
from pipeline.schema.privacy import Keep, Metadata, Treatment, UserAgent, read_treatment
from pipeline.schema.types import PRIMITIVES, AvroType, TypeReader, check_keys, whole

__all__ = ["FORMER_ONE_OF", "NO_DEFAULT", "ONE_OF", "PRIMITIVES", "Field", "check_keys", "read_field"]

NUMERIC = frozenset({"int", "long", "float", "double"})
NO_DEFAULT: Final[Any] = object()
ONE_OF = "one_of"
FORMER_ONE_OF = "values"
"""Former name of `one_of`. It is Avro's word for the type of a map's values, so libraries keep it."""

_TEXT_KEYS = ("pattern", ONE_OF, FORMER_ONE_OF)
_MANY_KEYS = ("max_items", "key_pattern")
_KEYS = (
    "name", "type", "doc", "default", "order", "aliases", "min", "max", *_TEXT_KEYS, "max_length", "privacy",
    *_MANY_KEYS,
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_A_DAY = {"time-millis": 86_400_000, "time-micros": 86_400_000_000}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a family's schema, with the conditions for a valid value."""

    name: str
    type: str
    """A primitive type of Avro, enum, fixed, array or map; of the value, if the field may be null."""
    logical_type: str | None = None
    default: Any = NO_DEFAULT
    minimum: int | float | Decimal | None = None
    maximum: int | float | Decimal | None = None
    pattern: re.Pattern[str] | None = None
    values: tuple[str, ...] | None = None
    """Closed set of a string, or the symbols of an enum."""
    max_length: int | None = None
    precision: int = 0
    scale: int = 0
    privacy: Treatment | None = None
    null: int | None = None
    """Place of null in the union; None for a field that always has a value."""
    size: int = 0
    """Bytes of a fixed."""
    type_name: str = ""
    """Name of an enum or a fixed."""
    default_symbol: str | None = None
    """Symbol that stands for those of a writer's enum that this one lacks."""
    items: "Field | None" = None
    """Conditions for a list's items or a map's values; its name is the field's."""
    max_items: int | None = None
    key_pattern: re.Pattern[str] | None = None
    """Pattern of a map's keys."""

    @property
    def nullable(self) -> bool:
        """True if the field may have no value."""
        return self.null is not None

    @property
    def undeclared(self) -> bool:
        """True for open text or bytes without a declared treatment of personal data."""
        if self.items is not None:
            return self.items.undeclared
        open_form = self.type in {"string", "bytes", "fixed"} and self.logical_type is None and self.values is None
        return open_form and self.privacy is None

    @property
    def required(self) -> bool:
        """True if the field has no default, so that each record must contain it."""
        return self.default is NO_DEFAULT

    @property
    def physical(self) -> Any:
        """Avro type of the bytes, as parsed JSON: without logical types and attributes."""
        layout: Any = self.type
        match self.type:
            case "enum":
                default = {} if self.default_symbol is None else {"default": self.default_symbol}
                layout = {"type": "enum", "name": self.type_name, "symbols": list(self.values or ()), **default}
            case "fixed":
                layout = {"type": "fixed", "name": self.type_name, "size": self.size}
            case "array" | "map" if self.items is not None:
                layout = {"type": self.type, "items" if self.type == "array" else "values": self.items.physical}
        if self.null is None:
            return layout
        return ["null", layout] if self.null == 0 else [layout, "null"]


def read_field(where: str, position: int, raw: Any, types: TypeReader | None = None) -> Field:
    """Read one field of an .avsc.

    Args:
        where: the file, for messages.
        position: index of the field in the record, from 0; identifies the field in messages until its name is known.
        raw: the declaration, as parsed JSON.
        types: reader of the record's types; None if the field names no type of another field.

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
    declared = (types or TypeReader()).read(where, raw.get("type"))
    _check_applicable(where, raw, declared)
    default = raw.get("default", NO_DEFAULT)
    if declared.null is not None and default is not NO_DEFAULT and (default is None) != (declared.null == 0):
        expected = "null" if declared.null == 0 else "a value"
        raise ConfigError(f"{where}.default: expected {expected}, of the first type of the union, got {default!r}")
    if declared.items is None:
        return _field(where, raw, declared, default)
    return Field(
        name,
        declared.kind,
        default=default,
        items=_field(where, raw, declared.items, NO_DEFAULT),
        max_items=whole(f"{where}.max_items", raw["max_items"], 1) if "max_items" in raw else None,
        key_pattern=_pattern(where, raw, "key_pattern") if declared.kind == "map" else None,
    )


def _field(where: str, raw: Mapping[str, Any], declared: AvroType, default: Any) -> Field:
    """Read the conditions of a scalar."""
    minimum, maximum = (_bound(where, key, raw, declared.logical_type) for key in ("min", "max"))
    if minimum is not None and maximum is not None and minimum > maximum:
        raise ConfigError(f"{where}.min: expected at most max, {maximum}, got {minimum}")
    if declared.logical_type in _OF_A_DAY:
        last = _OF_A_DAY[declared.logical_type] - 1
        minimum, maximum = max(minimum or 0, 0), last if maximum is None else min(maximum, last)
    return Field(
        name=raw["name"],
        type=declared.kind,
        logical_type=declared.logical_type,
        default=default,
        minimum=minimum,
        maximum=maximum,
        pattern=_pattern(where, raw, "pattern"),
        values=declared.symbols or _values(where, raw),
        max_length=whole(f"{where}.max_length", raw["max_length"], 1) if "max_length" in raw else None,
        precision=declared.precision,
        scale=declared.scale,
        privacy=_privacy(where, raw, declared),
        null=declared.null,
        size=declared.size,
        type_name=declared.name,
        default_symbol=declared.default_symbol,
    )


def _check_applicable(where: str, raw: Mapping[str, Any], declared: AvroType) -> None:
    """Refuse attributes that the type has no use for, and those that contradict each other."""
    leaf = declared.items or declared
    textual = leaf.kind == "string" and leaf.logical_type is None
    opaque = leaf.kind in {"bytes", "fixed"} and leaf.logical_type is None
    fits = {
        **dict.fromkeys(_TEXT_KEYS, (textual, "a plain string")),
        "max_length": (textual or (opaque and leaf.kind == "bytes"), "a plain string or bytes"),
        "privacy": (textual or opaque, "a plain string, bytes or fixed"),
        **dict.fromkeys(("min", "max"), (leaf.kind in NUMERIC or leaf.logical_type == "decimal", "a number")),
        "max_items": (declared.kind in {"array", "map"}, "an array or a map"),
        "key_pattern": (declared.kind == "map", "a map"),
    }
    for key, (applies, expected) in fits.items():
        if key in raw and not applies:
            raise ConfigError(f"{where}.{key}: expected on {expected} only, this is {leaf.logical_type or leaf.kind}")
    if declared.kind == "map" and "key_pattern" not in raw:
        raise ConfigError(f"{where}.key_pattern: expected the pattern of the map's keys, because free text is no key")
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


def _pattern(where: str, raw: Mapping[str, Any], key: str) -> re.Pattern[str] | None:
    if key not in raw:
        return None
    if not isinstance(raw[key], str):
        raise ConfigError(f"{where}.{key}: expected a regular expression, got {raw[key]!r}")
    try:
        return re.compile(raw[key])
    except re.error as error:
        raise ConfigError(f"{where}.{key}: expected a regular expression: {error}") from None


def _values(where: str, raw: Mapping[str, Any]) -> tuple[str, ...] | None:
    key = _closed_set_key(raw)
    if key not in raw:
        return None
    values = raw[key]
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"{where}.{key}: expected a list of strings, got {values!r}")
    return tuple(values)


def _privacy(where: str, raw: Mapping[str, Any], declared: AvroType) -> Treatment | None:
    if "privacy" not in raw:
        return None
    if (closed := _closed_set_key(raw)) in raw:
        raise ConfigError(f"{where}.privacy: expected none beside {closed}, which holds nothing personal")
    treatment = read_treatment(f"{where}.privacy", raw["privacy"])
    if declared.kind != "string":
        if not isinstance(treatment, Keep):
            raise ConfigError(f'{where}.privacy: expected "keep" on {declared.kind}, if nothing in it is personal')
    elif isinstance(treatment, Keep) and "pattern" not in raw:
        raise ConfigError(f'{where}.privacy: expected a pattern beside "keep", because free text can\'t be kept')
    if isinstance(treatment, (UserAgent, Metadata)) and "pattern" in raw:
        raise ConfigError(f"{where}.pattern: expected none on a user agent or metadata")
    return treatment
