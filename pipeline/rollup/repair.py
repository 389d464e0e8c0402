"""Rewrite one day of session_stats from ui_events, by replacing its partition.

The new rows go into a staging table, whose partition then replaces the old one in one step. Open hours keep their rows,
because the rollup still writes them. It may store rows at any moment. Rows stored during the copy are
noticed before the replacement, and the repair starts again. For the last look and the replacement, inserts are held up
(`pipeline.clickhouse.barrier`). Where that isn't possible, on a replicated or empty table, rows that were stored
between the two are noticed right after them.

Somebody may kill a query of the repair. The number of copied rows tells that a copy isn't whole. A replacement that was
killed may be made or not: the look for lost rows follows in any case.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from pipeline.clickhouse.barrier import barrier, remove_left, works
from pipeline.clickhouse.client import connect, execute_again
from pipeline.clickhouse.likeness import create_like
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.session_stats import COLUMNS, TABLE
from pipeline.clickhouse.table_lock import TableLock
from pipeline.config import ClickHouseSettings
from pipeline.errors import ChimeraError
from pipeline.rollup.audit import HOUR_SECONDS, Audit, Hour, Kind
from pipeline.rollup.horizon import Horizon, explains

_MOST_TURNS = 5

_PARTS = f"FROM system.parts WHERE database = currentDatabase() AND table = '{TABLE}' AND partition = '{{day}}'"
_NEWEST = f"SELECT max(max_block_number) {_PARTS} AND active"
# Replaced parts have lower block numbers than the parts that replaced them.
_REPLACED = f"""
    SELECT rows, toUnixTimestamp(min_time), toUnixTimestamp(max_time)
    {_PARTS} AND NOT active AND rows > 0 AND max_block_number > {{known}}
        AND max_block_number < (SELECT min(min_block_number) {_PARTS} AND active)
"""


class RefusedError(ChimeraError):
    """A repair would remove rows that can't be computed again; nothing was changed."""


class OvertakenError(ChimeraError):
    """The rollup stored rows of the day during the repair; the message tells whether they are kept."""


@dataclass(frozen=True, slots=True)
class HourPlan:
    """Changes that a repair makes to the rows of an hour."""

    hour: Hour
    open: bool
    """True if the hour keeps its rows: it is open, or left out, or a TTL has begun to expire its events or rows."""
    kept: int
    changed: int = 0
    """Sessions whose row gets other values, or whose several rows become one."""
    added: int = 0
    removed: int = 0
    """Rows of sessions without events."""
    late: int = 0
    """Number of changed and added rows that only gain late events."""
    lost: int = 0
    """Events that rows count and ui_events lacks."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes that a repair makes to a day."""

    day: date
    hours: tuple[HourPlan, ...]

    @property
    def changes(self) -> bool:
        """True if the repair changes any row."""
        return any(hour.changed or hour.added or hour.removed for hour in self.hours)

    def check(self) -> None:
        """Check that the repair removes no row that can't be computed again.

        Raises:
            RefusedError: ui_events has no events of any closed hour, and rows would be removed.
        """
        removed = sum(hour.removed for hour in self.hours)
        if removed and not any(hour.hour.events for hour in self.hours if not hour.open):
            raise RefusedError(
                f"ui_events has no events of {self.day} any more: all {removed} rows of its closed hours would be "
                "removed from session_stats and could never be computed again; expected events to repair them from. "
                f"To remove them anyway: ALTER TABLE {TABLE} DROP PARTITION '{self.day}'"
            )


def plan(audit: Audit, horizon: Horizon, day: date, only: Collection[int] | None = None) -> Plan:
    """Return the changes that a repair of the day would make; changes nothing.

    Args:
        audit: comparison of the two tables.
        horizon: closed hours and late events.
        day: a partition of session_stats.
        only: hours to repair, as numbers since 1970; the others keep their rows. None for all.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: wrap the call in `pipeline.clickhouse.client.explained`.
    """
    hours = audit.hours(day)
    computed = _computed(audit, horizon, only, hours)
    return Plan(day, tuple(_plan(audit, horizon, hour, keeps=hour not in computed) for hour in hours))


def _computed(audit: Audit, horizon: Horizon, only: Collection[int] | None, hours: Collection[Hour]) -> frozenset[Hour]:
    """Return the hours whose rows are computed: closed, wanted, and not yet expired by a TTL."""
    wanted = (hour for hour in hours if horizon.closed(hour) and (only is None or hour.number in only))
    return frozenset(wanted) - audit.expired(hours)


def _plan(audit: Audit, horizon: Horizon, hour: Hour, *, keeps: bool) -> HourPlan:
    if keeps:
        return HourPlan(hour, open=True, kept=hour.rows)
    late_events, rows = horizon.late_events(hour), Counter[Kind]()
    late = touched = lost = 0
    for difference in audit.differences(hour):
        touched += difference.copies
        late += explains(late_events, difference)
        lost += difference.lost_events
        rows[difference.kind] += difference.copies if difference.kind is Kind.EXTRA else 1
    return HourPlan(
        hour,
        open=False,
        kept=hour.rows - touched,
        changed=rows[Kind.DIFFERING] + rows[Kind.SPLIT],
        added=rows[Kind.MISSING],
        removed=rows[Kind.EXTRA],
        late=late,
        lost=lost,
    )


def repair(
    settings: ClickHouseSettings, source: str, horizon: Horizon, day: date, only: Collection[int] | None = None
) -> None:
    """Replace the day's partition, all or nothing: closed hours are computed, open hours keep their rows.

    Args:
        settings: ClickHouse, with a user that has the rights listed in docs/session_stats.md.
        source: name of the table with the events.
        horizon: closed hours.
        day: a partition of session_stats; its plan must have been checked.
        only: hours to compute, as numbers since 1970; the others keep their rows. None for all.

    Raises:
        TakenError: another repair is under way.
        OvertakenError: new rows kept coming and nothing was changed; or inserts couldn't be held up, and rows that came
            at the last moment are lost until the day is repaired again.
        UnavailableError: the table of the copy can't be dropped. After this and after the driver's errors, the day may
            be repaired or not, and the same repair may be made again.
        clickhouse_driver.errors.Error, OSError, EOFError: wrap the call in `pipeline.clickhouse.client.explained`.
    """
    with TableLock(settings, TABLE), connect(settings) as client:
        remove_left(settings, TABLE)
        audit = Audit(client, source)
        for _ in range(_MOST_TURNS):
            known = _newest_block(client, day)
            held_up = works(client, TABLE)
            with _staging(settings, client) as staging:
                copied = _fill(client, audit, day, partial(_computed, audit, horizon, only), staging)
                with barrier(settings, client, TABLE) if held_up else nullcontext():
                    unchanged = _newest_block(client, day) == known and audit.counts(staging) == copied
                    if unchanged:
                        try:
                            _replace(client, day, staging)
                        finally:  # the server may have made it even if it says that the query was killed
                            if not held_up:
                                _check_nothing_lost(client, horizon.closed_before if only is None else 0, day, known)
            if unchanged:
                return
    raise _overtaken(source, day)


def _overtaken(source: str, day: date) -> OvertakenError:
    return OvertakenError(
        f"session_stats or {source} got new rows of {day} in each of {_MOST_TURNS} attempts, or queries were killed; "
        "nothing was changed: expected no new rows during a repair; try again when the rollup has caught up"
    )


@contextmanager
def _staging(settings: ClickHouseSettings, client: Any) -> Iterator[str]:
    """Create a staging table like session_stats for this repair; it is dropped at the end."""
    name = f"{TABLE}_repair_{secrets.token_hex(4)}"
    drop = f"DROP TABLE IF EXISTS {name}"
    try:
        create_like(client, name, TABLE)  # it may be there even if this fails
        yield name
    except BaseException:
        with suppress(ChimeraError):  # the first failure tells more
            execute_again(settings, drop)
        raise
    execute_again(settings, drop)


def _fill(
    client: Any, audit: Audit, day: date, choose: Callable[[list[Hour]], Collection[Hour]], staging: str
) -> dict[int, int]:
    """Copy the rows of the day; return the number of rows that the copy must have, by the beginning of the hour."""
    hours, expected = audit.hours(day), {}
    computed = choose(hours)
    for hour in hours:
        rows = audit.recomputed(hour) if hour in computed else audit.stored(hour)
        client.execute(f"INSERT INTO {staging} ({', '.join(COLUMNS)}) {rows}")
        expected[hour.begins_at] = audit.recomputed_count(hour) if hour in computed else hour.rows
    return {begins_at: count for begins_at, count in expected.items() if count}


def _newest_block(client: Any, day: date) -> int:
    """Return the greatest block number of the partition; it grows with each insert, and merges don't change it."""
    return int(all_rows(client, _NEWEST.format(day=day))[0][0])


def _replace(client: Any, day: date, staging: str) -> None:
    client.execute(f"ALTER TABLE {TABLE} REPLACE PARTITION '{day}' FROM {staging}")


def _check_nothing_lost(client: Any, computed_before: float, day: date, known: int) -> None:
    """Raise OvertakenError if rows of hours that aren't computed were in the replaced parts.

    ClickHouse lists replaced parts until it cleans up, about every half minute. Rows of computed hours don't matter:
    another repair or a recovery stored them, and the same events give the same rows.
    """
    opened_at = computed_before * HOUR_SECONDS
    parts = [part for part in all_rows(client, _REPLACED.format(day=day, known=known)) if part[2] >= opened_at]
    if parts:
        rows, first, last = (
            sum(part[0] for part in parts),
            min(part[1] for part in parts),
            max(part[2] for part in parts),
        )
        times = " to ".join(f"{datetime.fromtimestamp(at, UTC):%H:%M}" for at in sorted({max(first, opened_at), last}))
        raise OvertakenError(
            f"{day} is repaired, but at the same moment the rollup stored {rows} rows of the hour {times} UTC, and "
            f"they are lost with the old partition: run `chimera rollup repair --day {day} --execute` again as soon as "
            "`chimera rollup verify` counts that hour as closed"
        )
