"""Writes a day of session_stats once more, from ui_events: all of its partition at once.

A table beside it gets the rows that are to be, and its partition takes the place of the old one in one step. Hours that
are still open keep their rows: they belong to the stream job. It may emit an hour at any moment; what comes while rows
are copied is seen before the step, and what comes between that look and the step, right after it.
"""

import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from pipeline.clickhouse.client import connect
from pipeline.clickhouse.session_stats import COLUMNS, TABLE
from pipeline.config import ClickHouseSettings
from pipeline.errors import ChimeraError
from pipeline.rollup.audit import HOUR_SECONDS, Audit, Hour, Kind
from pipeline.rollup.horizon import Horizon, explains

_MOST_TURNS = 5

_PARTS = f"FROM system.parts WHERE database = currentDatabase() AND table = '{TABLE}' AND partition = '{{day}}'"
_NEWEST = f"SELECT max(max_block_number) {_PARTS} AND active"
# Parts that were replaced have lower numbers than those that took their place.
_REPLACED = f"""
    SELECT rows, toUnixTimestamp(min_time), toUnixTimestamp(max_time)
    {_PARTS} AND NOT active AND rows > 0 AND max_block_number > {{known}}
        AND max_block_number < (SELECT min(min_block_number) {_PARTS} AND active)
"""


class RefusedError(ChimeraError):
    """A repair would take away what nobody could compute again; nothing was changed."""


class OvertakenError(ChimeraError):
    """The stream job has stored rows of that day meanwhile: says whether they are still there."""


@dataclass(frozen=True, slots=True)
class HourPlan:
    """What becomes of the rows of an hour."""

    hour: Hour
    open: bool
    """It keeps the rows it has."""
    kept: int
    changed: int = 0
    """Sessions whose row gets other values, or that have one row afterwards instead of several."""
    added: int = 0
    removed: int = 0
    """Rows of sessions without events."""
    late: int = 0
    """Of those changed and added, how many only get their late events."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a repair does to a day."""

    day: date
    hours: tuple[HourPlan, ...]

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return any(hour.changed or hour.added or hour.removed for hour in self.hours)

    def check(self) -> None:
        """See that it is a repair.

        Raises:
            RefusedError: ui_events has no event left of any closed hour, and rows would be removed.
        """
        removed = sum(hour.removed for hour in self.hours)
        if removed and not any(hour.hour.events for hour in self.hours if not hour.open):
            raise RefusedError(
                f"ui_events has no events of {self.day} any more: all {removed} rows of its closed hours would be "
                "removed from session_stats, and could never be computed again; expected events to repair them from. "
                f"If they are to go all the same: ALTER TABLE {TABLE} DROP PARTITION '{self.day}'"
            )


def plan(audit: Audit, horizon: Horizon, day: date) -> Plan:
    """What a repair of that day would do; changes nothing.

    Args:
        audit: of the two tables.
        horizon: which hours are closed, and the late events.
        day: a partition of session_stats.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: `pipeline.clickhouse.client.explained` says what follows.
    """
    return Plan(day, tuple(_plan(audit, horizon, hour) for hour in audit.hours(day)))


def _plan(audit: Audit, horizon: Horizon, hour: Hour) -> HourPlan:
    if not horizon.closed(hour):
        return HourPlan(hour, open=True, kept=hour.rows)
    late_events, rows = horizon.late_events(hour), Counter[Kind]()
    late = touched = 0
    for difference in audit.differences(hour):
        touched += difference.copies
        late += explains(late_events, difference)
        rows[difference.kind] += difference.copies if difference.kind is Kind.EXTRA else 1
    return HourPlan(
        hour,
        open=False,
        kept=hour.rows - touched,
        changed=rows[Kind.DIFFERING] + rows[Kind.SPLIT],
        added=rows[Kind.MISSING],
        removed=rows[Kind.EXTRA],
        late=late,
    )


def repair(settings: ClickHouseSettings, source: str, horizon: Horizon, day: date) -> None:
    """Replace the day's partition: closed hours from their events, open ones as they are. All or nothing.

    Args:
        settings: of a user with the rights that docs/session_stats.md lists.
        source: the table that has the events.
        horizon: which hours are closed.
        day: a partition of session_stats, whose plan has been checked.

    Raises:
        OvertakenError: rows came in between: again and again, and nothing was changed; or at the last moment, and they
            are gone until the day is repaired once more.
        clickhouse_driver.errors.Error, OSError, EOFError: `pipeline.clickhouse.client.explained` says what follows.
    """
    with connect(settings) as client:
        audit = Audit(client, source)
        for _ in range(_MOST_TURNS):
            known = _newest_block(client, day)
            with _staging(settings, client) as staging:
                _fill(client, audit, horizon, day, staging)
                if _newest_block(client, day) == known:
                    _replace(client, day, staging)
                    _check_nothing_lost(client, horizon, day, known)
                    return
    raise OvertakenError(
        f"session_stats got new rows of {day} in each of {_MOST_TURNS} attempts; nothing was changed: expected a "
        "moment without; try again when the stream job has caught up"
    )


@contextmanager
def _staging(settings: ClickHouseSettings, client: Any) -> Iterator[str]:
    """A table like session_stats, of this repair alone; dropped however it ends."""
    name = f"{TABLE}_repair_{secrets.token_hex(4)}"
    client.execute(f"CREATE TABLE {name} AS {TABLE}")
    try:
        yield name
    finally:
        with connect(settings) as another:  # the first one may have been interrupted in the middle of something
            another.execute(f"DROP TABLE {name}")


def _fill(client: Any, audit: Audit, horizon: Horizon, day: date, staging: str) -> None:
    for hour in audit.hours(day):
        rows = audit.recomputed(hour) if horizon.closed(hour) else audit.stored(hour)
        client.execute(f"INSERT INTO {staging} ({', '.join(COLUMNS)}) {rows}")


def _newest_block(client: Any, day: date) -> int:
    """Grows with each block that is inserted into the partition; merges don't change it."""
    return int(client.execute(_NEWEST.format(day=day))[0][0])


def _replace(client: Any, day: date, staging: str) -> None:
    client.execute(f"ALTER TABLE {TABLE} REPLACE PARTITION '{day}' FROM {staging}")


def _check_nothing_lost(client: Any, horizon: Horizon, day: date, known: int) -> None:
    """ClickHouse lists replaced parts until it has cleaned up, which it does every half minute or so.

    What came of hours that had been closed before, by another repair or a recovery, follows from the same events.
    """
    opened_at = horizon.closed_before * HOUR_SECONDS
    parts = [part for part in client.execute(_REPLACED.format(day=day, known=known)) if part[2] >= opened_at]
    if parts:
        rows, first, last = (
            sum(part[0] for part in parts),
            min(part[1] for part in parts),
            max(part[2] for part in parts),
        )
        times = " to ".join(f"{datetime.fromtimestamp(at, UTC):%H:%M}" for at in sorted({max(first, opened_at), last}))
        raise OvertakenError(
            f"{day} is repaired, but at the same moment the stream job stored {rows} rows of the hour {times} UTC, and "
            f"they are gone with the old partition: run `chimera rollup repair --day {day} --execute` again as soon as "
            "`chimera rollup verify` counts that hour as closed"
        )
