"""Compares session_stats with what follows from ui_events, and says which differences late events explain."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

from pipeline.rollup.audit import Audit, Difference, Hour, Kind
from pipeline.rollup.horizon import Horizon, explains


@dataclass(slots=True)
class Report:
    """What was compared, and what came out."""

    hours: int = 0
    """How many were compared."""
    rows: int = 0
    """How many were checked: those that session_stats has, and those that it lacks."""
    found: Counter[Kind] = field(default_factory=Counter)
    explained: int = 0
    """How many of these late events explain."""
    late_included: int = 0
    """Rows that have late events in them: a repair has put them there."""
    listed: list[tuple[Difference, bool]] = field(default_factory=list)
    """The first of the differences, and whether late events explain them."""
    open_hours: list[Hour] = field(default_factory=list)
    """Left out: not all partitions have emitted them."""
    gone_hours: list[Hour] = field(default_factory=list)
    """Left out: of days before the first one that ui_events has events of."""

    @property
    def unexplained(self) -> int:
        """How many of the differences late events don't explain."""
        return self.found.total() - self.explained


def verify(
    audit: Audit,
    horizon: Horizon,
    day: date | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Report:
    """Compare every row of the hours that are closed, exactly.

    Args:
        audit: of the two tables.
        horizon: which hours are closed, and the late events.
        day: only this one, a partition of session_stats; otherwise all.
        limit: how many of the differences are listed; all, when None.
        progress: called with the number of hours compared and of all there are.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: `pipeline.clickhouse.client.explained` says what follows.
    """
    report, oldest, asked = Report(), audit.oldest_day(), audit.hours(day)
    for done, hour in enumerate(asked):
        progress(done, len(asked))
        if not horizon.closed(hour):
            report.open_hours.append(hour)
        elif oldest is None or hour.day < oldest:
            report.gone_hours.append(hour)
        else:
            _compare(audit, horizon, hour, report, limit)
    progress(len(asked), len(asked))
    return report


def _compare(audit: Audit, horizon: Horizon, hour: Hour, report: Report, limit: int | None) -> None:
    late = horizon.late_events(hour)
    report.hours += 1
    report.rows += hour.rows
    report.late_included += len(late)
    for difference in audit.differences(hour):
        explained = explains(late, difference)
        report.found[difference.kind] += 1
        report.rows += difference.kind is Kind.MISSING
        report.explained += explained
        report.late_included -= difference.session_id in late
        if limit is None or len(report.listed) < limit:
            report.listed.append((difference, explained))
