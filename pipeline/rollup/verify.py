"""Compare session_stats with ui_events, and tell which differences late events explain."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

from pipeline.rollup.audit import Audit, Difference, Hour, Kind
from pipeline.rollup.horizon import Horizon, explains


@dataclass(slots=True)
class Report:
    """Result of a comparison."""

    hours: int = 0
    """Number of hours compared."""
    rows: int = 0
    """Number of rows checked: existing rows and missing rows."""
    found: Counter[Kind] = field(default_factory=Counter)
    """Number of differences by kind."""
    explained: int = 0
    """Number of differences that late events explain."""
    late_included: int = 0
    """Rows that include events counted as late: from a repair, or from records that the worker has read again."""
    listed: list[tuple[Difference, bool]] = field(default_factory=list)
    """The first differences; the bool is True if late events explain the difference."""
    open_hours: list[Hour] = field(default_factory=list)
    """Hours left out because not all partitions have stored them."""
    gone_hours: list[Hour] = field(default_factory=list)
    """Hours left out because they are before the first day of ui_events, or a TTL expires their rows."""

    uncounted: int = 0
    """Records that no snapshot counts yet: late events among them explain no difference."""

    @property
    def unexplained(self) -> int:
        """Number of differences that late events don't explain."""
        return self.found.total() - self.explained


def verify(
    audit: Audit,
    horizon: Horizon,
    day: date | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Report:
    """Compare every row of the closed hours exactly.

    Args:
        audit: comparison of the two tables.
        horizon: closed hours and late events.
        day: only this partition of session_stats; None for all days.
        limit: number of differences to list; None for all.
        progress: called with the number of hours compared and the number of all hours.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: wrap the call in `pipeline.clickhouse.client.explained`.
    """
    report, oldest, asked = Report(uncounted=horizon.uncounted), audit.oldest_day(), audit.hours(day)
    expired = audit.expired(asked)
    for done, hour in enumerate(asked):
        progress(done, len(asked))
        if not horizon.closed(hour):
            report.open_hours.append(hour)
        elif oldest is None or hour.day < oldest or hour in expired:
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
