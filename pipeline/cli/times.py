"""Times and days as options take them: in ISO 8601, or as a distance from now."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click

_AGO = re.compile(r"(?P<number>\d{1,9})(?P<unit>[smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DAYS_AGO = {"today": 0, "yesterday": 1}


class TimeType(click.ParamType):
    """A time in ISO 8601, UTC if it has no offset; or the time that was so long ago: 90s, 15m, 1h, 2d, 1w."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time, aware."""
        time = time_of(value)
        if time is None:
            self.fail(
                f"expected ISO 8601, such as 2026-11-24 or 2026-11-24T12:00Z, or a time ago, such as 1h, got {value!r}",
                param,
                ctx,
            )
        return time


class DayType(click.ParamType):
    """A day in UTC: 2026-11-24, `today` or `yesterday`.

    Args:
        first: the first day that is allowed.
        last: the last one.
    """

    name = "day"

    def __init__(self, first: date = date.min, last: date = date.max) -> None:
        self._first, self._last = first, last

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Return the day."""
        if value in _DAYS_AGO:
            return datetime.now(UTC).date() - timedelta(days=_DAYS_AGO[value])
        try:
            day = datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC).date()
        except ValueError:
            self.fail(f"expected a day such as 2026-11-24, today or yesterday, got {value!r}", param, ctx)
        if not self._first <= day <= self._last:
            self.fail(f"expected a day from {self._first} to {self._last}, got {day}", param, ctx)
        return day


def time_of(text: str) -> datetime | None:
    """Return the time that a text names; None if it names none."""
    try:
        if ago := _AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago["unit"]]: int(ago["number"])})
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
