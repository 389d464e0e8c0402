"""Converts the times, dates and times of day of an event to the whole numbers that Avro writes.

| declared | accepted |
|---|---|
| timestamp | aware datetime, ISO 8601 text with an offset or Z, or whole units since 1970; cut to the unit |
| date | date, ISO 8601 text, or days since 1970 |
| time of day | time without a zone, ISO 8601 text, or whole units since midnight; cut to the unit |
"""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from pipeline.schema.fields import Field

Convert = Callable[[Any], Any]
"""Function that returns the value for Avro, or raises UnfitError."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAY = _EPOCH.date()
_BITS = {"int": 32, "long": 64}
_UNITS = {"millis": ("milliseconds", timedelta(milliseconds=1)), "micros": ("microseconds", timedelta(microseconds=1))}


class UnfitError(Exception):
    """A value that doesn't fit its field; the message names the expected value."""


def integer_bounds(field: Field) -> tuple[int, int]:
    """Return the least and the greatest whole number that a field accepts."""
    limit = 1 << _BITS[field.type] - 1
    low = -limit if field.minimum is None else max(-limit, math.ceil(field.minimum))
    high = limit - 1 if field.maximum is None else min(limit - 1, math.floor(field.maximum))
    return low, high


def _timestamp(field: Field) -> Convert:
    name, unit = _UNITS[(field.logical_type or "").rpartition("-")[2]]
    expected = "ISO 8601 with an offset or Z, an aware datetime, or whole {name} from {low} to {high}"

    def number(value: Any) -> Any:
        if isinstance(value, str):
            value = _parsed(datetime.fromisoformat, value)
        return (value - _EPOCH) // unit if isinstance(value, datetime) and value.tzinfo is not None else value

    return _whole(field, number, expected, name)


def _date(field: Field) -> Convert:
    def number(value: Any) -> Any:
        if isinstance(value, str):
            value = _parsed(date.fromisoformat, value)
        is_day = isinstance(value, date) and not isinstance(value, datetime)
        return (value - _FIRST_DAY).days if is_day else value

    return _whole(field, number, "an ISO 8601 date, a date, or whole {name} since 1970 from {low} to {high}", "days")


def _time(field: Field) -> Convert:
    name, unit = _UNITS[(field.logical_type or "").rpartition("-")[2]]

    def number(value: Any) -> Any:
        if isinstance(value, str):
            value = _parsed(time.fromisoformat, value)
        if isinstance(value, time) and value.tzinfo is None:
            after = timedelta(
                hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond
            )
            return after // unit
        return value

    return _whole(field, number, "an ISO 8601 time of day, a time, or whole {name} from {low} to {high}", name)


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError:
        return None


def _whole(field: Field, number: Convert, expected: str, name: str) -> Convert:
    low, high = integer_bounds(field)

    def convert(value: Any) -> int:
        value = number(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UnfitError(expected.format(name=name, low=low, high=high))
        return value

    return convert


CONVERT_TIMES: dict[str, Callable[[Field], Convert]] = {
    "timestamp-millis": _timestamp,
    "timestamp-micros": _timestamp,
    "date": _date,
    "time-millis": _time,
    "time-micros": _time,
}
"""Maker of the converter for each logical type of time."""
