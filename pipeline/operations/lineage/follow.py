"""session_stats after a replay of ui_events: its closed hours are computed again from the rows that are there now."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta

from pipeline.catalog import RollupSpec
from pipeline.clickhouse.client import connect, explained
from pipeline.config import Settings
from pipeline.errors import ChimeraError
from pipeline.rollup.audit import Audit
from pipeline.rollup.horizon import Horizon, read_horizon
from pipeline.rollup.repair import plan, repair

_EPOCH = date(1970, 1, 1)
_HOURS = 24


@dataclass(frozen=True, slots=True)
class Followed:
    """One day of session_stats that a replay touched. Hours are numbers since 1970."""

    day: date
    closed: tuple[int, ...]
    """Touched hours that are closed; they are in line with ui_events now."""
    open: tuple[int, ...]
    """Touched hours that the rollup still stores, or whose rows a TTL expires."""
    left: tuple[int, ...]
    """Touched closed hours that keep their rows, because ui_events lacks events that these count."""
    rows: int
    """Rows that were changed, added or removed."""


def touched_days(settings: Settings, rollup: RollupSpec, hours: Collection[int]) -> tuple[date, ...]:
    """Return the days of session_stats that hours are of, in their order; in UTC if ClickHouse can't be asked.

    A day of session_stats is one of the server's time zone, because `hour` has none of its own.

    Args:
        settings: ClickHouse.
        rollup: source of session_stats.
        hours: numbers since 1970.
    """
    try:
        with explained(settings.clickhouse), connect(settings.clickhouse) as client:
            return Audit(client, rollup.source.table).days(hours)
    except ChimeraError:
        return tuple(_EPOCH + timedelta(days=day) for day in sorted({hour // _HOURS for hour in hours}))


def follow(
    settings: Settings, rollup: RollupSpec, hours: Collection[int], horizon: Horizon | None = None
) -> list[Followed]:
    """Bring session_stats in line for these hours, as `chimera rollup repair` does for a day.

    All other hours keep their rows, and so do hours with a row that counts more events than ui_events has: retention
    may have deleted them, and the row could never be computed again.

    Args:
        settings: Kafka and ClickHouse.
        rollup: source and state of session_stats.
        hours: touched hours, as numbers since 1970.
        horizon: hours that are closed; None for those that are closed now, by the rollup's snapshots.

    Raises:
        UnavailableError, HaltError: a server doesn't answer or refuses, or no horizon is known yet.
        OvertakenError, TakenError: as `repair`; earlier days are done.
    """
    known = horizon or read_horizon(settings, rollup)
    with explained(settings.clickhouse):
        with connect(settings.clickhouse) as client:
            days = Audit(client, rollup.source.table).days(hours)
        return [_follow(settings, rollup, known, day, hours) for day in days]


def _follow(settings: Settings, rollup: RollupSpec, horizon: Horizon, day: date, hours: Collection[int]) -> Followed:
    with connect(settings.clickhouse) as client:
        planned = plan(Audit(client, rollup.source.table), horizon, day, hours)
    touched = [each for each in planned.hours if each.hour.number in hours]
    whole = [each for each in touched if not (each.open or each.lost)]
    closed = tuple(each.hour.number for each in whole)
    rows = sum(each.changed + each.added + each.removed for each in whole)
    if rows:
        repair(settings.clickhouse, rollup.source.table, horizon, day, set(closed))
    still_open = tuple(each.hour.number for each in touched if each.open)
    left = tuple(each.hour.number for each in touched if each.lost and not each.open)
    return Followed(day, closed, still_open, left, rows)
