"""Conditions on the fields of a record: `event_type = error and latency_ms > 1000`."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from pipeline.catalog import Family
from pipeline.cli.times import time_of
from pipeline.dlq.fields import readable
from pipeline.errors import unknown_key_message

_TERM = re.compile(
    r"""\s*(?P<name>\w+)\s*(?P<operator><=|>=|!=|=|<|>|~)\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<plain>\S+))"""
)
_AND = re.compile(r"\s+and\b", re.IGNORECASE)
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_PLACE = ("partition", "offset")
_EXAMPLE = "event_type = error and latency_ms > 1000"


@dataclass(frozen=True, slots=True)
class _Term:
    name: str
    operator: str
    value: str
    wanted: Decimal | str
    """The value in the form of the field: a number, which a time is too, or text."""
    is_time: bool = False

    def holds(self, found: Any) -> bool:
        if self.operator == "~":
            return re.search(self.value, str(found)) is not None
        if isinstance(self.wanted, Decimal):
            found = _number(found)
            return found is not None and _OPERATORS[self.operator](found, self.wanted)
        return _OPERATORS[self.operator](str(found), self.wanted)


class Where:
    """Conditions that a record meets, or not; a record without a field doesn't meet a condition on it.

    Args:
        family: its newest schema has the fields.
        text: the conditions; None for none.

    Raises:
        click.UsageError: the text is no condition, or names no field.
    """

    def __init__(self, family: Family, text: str | None) -> None:
        self._family = family
        self._terms = [] if text is None else list(_terms(family, text))

    def holds(self, fields: Mapping[str, Any], partition: int, offset: int) -> bool:
        """Tell whether a record meets all conditions.

        Args:
            fields: physical values by name, as `pipeline.dlq.content` reads them.
            partition: of the record.
            offset: of the record.
        """
        place = {"partition": partition, "offset": offset}
        for term in self._terms:
            if term.name in place:
                found: Any = place[term.name]
            elif term.name in fields:
                found = fields[term.name]
                found = found if term.is_time else readable(found, self._family.schema.by_name.get(term.name))
            else:
                return False
            if not term.holds(found):
                return False
        return True


def _terms(family: Family, text: str) -> "list[_Term]":
    terms, at = [], 0
    while found := _TERM.match(text, at):
        terms.append(_term(family, found))
        at = found.end()
        if not text[at:].strip():
            return terms
        more = _AND.match(text, at)
        at = more.end() if more else len(text) + 1
    raise click.UsageError(f"--where: expected conditions such as {_EXAMPLE!r}, got {text!r}")


def _term(family: Family, found: re.Match[str]) -> _Term:
    name, value = found["name"], next(text for text in found.group("double", "single", "plain") if text is not None)
    if name not in family.schema.by_name and name not in _PLACE:
        raise click.UsageError(f"--where: {name}: {unknown_key_message([*family.schema.by_name, *_PLACE], name)}")
    field = family.schema.by_name.get(name)
    if found["operator"] == "~":
        try:
            re.compile(value)
        except re.error as error:
            raise click.UsageError(f"--where: {name}: expected a regular expression: {error}") from None
        return _Term(name, "~", value, value)
    if field is not None and field.logical_type == "timestamp-millis":
        time = time_of(value)
        if time is None:
            raise click.UsageError(f"--where: {name}: expected a time such as 2026-11-24T12:00Z or 1h, got {value!r}")
        return _Term(name, found["operator"], value, Decimal(round(time.timestamp() * 1000)), is_time=True)
    numeric = field is None or field.logical_type == "decimal" or field.type in {"int", "long", "float", "double"}
    number = _number(value) if numeric else None
    if numeric and number is None:
        raise click.UsageError(f"--where: {name}: expected a number, got {value!r}")
    return _Term(name, found["operator"], value, value if number is None else number)


def _number(value: Any) -> Decimal | None:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
