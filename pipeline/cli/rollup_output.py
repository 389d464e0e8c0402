"""Output of `chimera rollup`: the report of `verify` and the plan of `repair`."""

from typing import Any

import click
from rich.table import Table

from pipeline.cli.terminal import terminal
from pipeline.rollup.audit import Difference, Hour, Kind
from pipeline.rollup.repair import HourPlan, Plan
from pipeline.rollup.verify import Report


def facts_of(report: Report) -> dict[str, Any]:
    """Return the report as the JSON object of `--json`; hours are in seconds since 1970."""
    return {
        "hours": report.hours,
        "rows": report.rows,
        **{str(kind): report.found[kind] for kind in Kind},
        "explained": report.explained,
        "unexplained": report.unexplained,
        "late_included": report.late_included,
        "uncounted_records": report.uncounted,
        "open": _extent(report.open_hours),
        "without_events": _extent(report.gone_hours),
        "listed": [
            {
                "hour": difference.hour.begins_at,
                "session_id": str(difference.session_id),
                "kind": difference.kind,
                "explained": is_explained,
                "copies": difference.copies,
                "found": difference.found and difference.found._asdict(),
                "expected": difference.expected and difference.expected._asdict(),
            }
            for difference, is_explained in report.listed
        ],
    }


def _extent(hours: list[Hour]) -> dict[str, int | None]:
    return {
        "hours": len(hours),
        "rows": sum(hour.rows for hour in hours),
        "first": hours[0].begins_at if hours else None,
        "last": hours[-1].begins_at if hours else None,
    }


def print_report(report: Report) -> None:
    """Print the differences, then the counts."""
    _print_differences(report)
    counts = ", ".join(f"{report.found[kind]:,} {kind}" for kind in Kind)
    click.echo(f"{report.rows:,} rows of {report.hours:,} hours checked: {counts}")
    if report.found:
        click.echo(f"Late events explain {report.explained:,} of {report.found.total():,} differences.")
    if report.unexplained and report.uncounted:
        click.echo(
            f"The worker's snapshots don't count the last {report.uncounted:,} records yet: late events among them can "
            "explain more differences. Verify again in a minute."
        )
    if report.late_included:
        click.echo(
            f"{report.late_included:,} rows include events that are counted as late: after `chimera rollup repair`, "
            "or after the group's offsets were moved back, when the worker reads events of closed hours again."
        )
    for hours, why in (
        (report.open_hours, "are still open"),
        (report.gone_hours, "are from days before the first event of ui_events, or a TTL has begun to expire them"),
    ):
        if hours:
            rows = sum(hour.rows for hour in hours)
            click.echo(f"Not compared: {len(hours):,} hours, {hours[0]} to {hours[-1]} UTC, {rows:,} rows: they {why}.")


def _print_differences(report: Report) -> None:
    """Print a line for each row that differs, and below it a line for each column; all fit in 80 columns."""
    if report.listed:
        click.echo(f"{len(report.listed):,} of {report.found.total():,} differences, by hour (UTC) and session:")
    for difference, is_explained in report.listed:
        late = ", late events" if is_explained else ""
        click.echo(f"{difference.hour}  {difference.session_id}  {difference.kind}{late}")
        for name, found, expected in _cells(difference):
            click.echo(f"  {name:16}  session_stats {found:>12}  ui_events {expected:>12}")


def _cells(difference: Difference) -> list[tuple[str, str, str]]:
    """Return each column that differs, with its value in session_stats and that of ui_events."""
    found, expected = difference.found, difference.expected
    if difference.kind is Kind.SPLIT or found is None or expected is None:
        return [("rows", str(difference.copies), str(int(expected is not None)))]
    names = found.differing(expected)
    return [(name, str(getattr(found, name)), str(getattr(expected, name))) for name in names]


def print_plan(planned: Plan) -> None:
    """Print what a repair does to each hour."""
    table = Table(title=f"session_stats on {planned.day}", title_justify="left")
    table.add_column("hour (UTC)")
    for heading in ("kept", "changed", "added", "removed"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for hour in planned.hours:
        counts = (hour.kept, hour.changed, hour.added, hour.removed)
        table.add_row(str(hour.hour), *(f"{count:,}" for count in counts), _remark(hour))
    if planned.hours:
        terminal().print(table)


def _remark(hour: HourPlan) -> str:
    if hour.open:
        return "still open"
    return f"{hour.late:,} for late events" if hour.late else ""
