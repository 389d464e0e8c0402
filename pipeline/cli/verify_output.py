"""Output of `chimera verify`: a table and sentences, or a JSON object."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from pipeline.cli.columns import print_columns
from pipeline.operations.lineage.report import FamilyReport, Listed, PartitionReport, Spot, Wanted

_NUMBERS = [field.name for field in fields(PartitionReport) if field.name not in {"partition", "begin", "committed"}]
_SHOWN = ("offsets", "rows", "dead_letters", "no_record", "lost", "doubled", "strange")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def facts_of(reports: Sequence[FamilyReport], wanted: Wanted) -> dict[str, Any]:
    """Return the reports as the JSON object of `--json`; hours are in ISO 8601, UTC."""
    totals = ("lost", "doubled", "strange", "unknown")
    return {
        "differs": any(report.differs for report in reports),
        **{name: sum(report.total(name) for report in reports) for name in totals},
        "unknown_rows": sum(report.unknown_rows for report in reports),
        "day": None if wanted.day is None else str(wanted.day),
        "families": [_family(report, wanted) for report in reports],
    }


def _family(report: FamilyReport, wanted: Wanted) -> dict[str, Any]:
    return {
        "family": report.family,
        "table": report.table,
        "topic": report.topic,
        "topic_id": str(report.topic_id),
        **{name: report.total(name) for name in _NUMBERS},
        "unknown_rows": report.unknown_rows,
        "other_topics": report.other_topics,
        "inserts_held_up": report.held_up,
        "partitions": [asdict(each) for _, each in sorted(report.partitions.items())],
        **({"hours": list(_hours(report))} if wanted.hours else {}),
        "listed": [_listed(each) for each in report.listed],
    }


def _hours(report: FamilyReport) -> Iterator[dict[str, Any]]:
    spots = report.rows_by.keys() | report.doubled_by.keys() | report.lost_by.keys()
    for spot in sorted(spots, key=lambda each: (each.partition, each.hour is None, each.hour)):
        yield {
            "partition": spot.partition,
            "hour": format_hour(spot.hour),
            "rows": report.rows_by[spot],
            "doubled": report.doubled_by[spot],
            "lost": report.lost_by[spot],
        }


def _listed(each: Listed) -> dict[str, Any]:
    return {
        "what": each.fault,
        "partition": each.partition,
        "first": each.first,
        "last": each.last,
        "first_hour": format_hour(each.first_hour),
        "last_hour": format_hour(each.last_hour),
    }


def format_hour(hour: int | None) -> str | None:
    """Return the beginning of an hour since 1970 in ISO 8601, UTC; None for an unknown hour."""
    return None if hour is None else f"{_EPOCH + timedelta(hours=hour):%Y-%m-%dT%H:%MZ}"


def print_report(reports: Sequence[FamilyReport], wanted: Wanted, *, by_partition: bool) -> None:
    """Print the numbers in columns, then the differences, then the sentences that explain the rest."""
    _print_numbers(reports, by_partition=by_partition)
    for report in reports:
        if wanted.hours:
            click.echo()
            _print_hours(report, by_partition=by_partition)
    for report in reports:
        for each in report.listed:
            click.echo(_sentence(report, each))
        for remark in _remarks(report):
            click.echo(f"{report.family}: {remark}")
    found = {name: sum(report.total(name) for report in reports) for name in ("lost", "doubled", "strange")}
    on = "" if wanted.day is None else f" on {wanted.day}"
    click.echo(", ".join(f"{count:,} {name}" for name, count in found.items()) + on)


def _print_numbers(reports: Sequence[FamilyReport], *, by_partition: bool) -> None:
    names = [name.replace("_", " ") for name in _SHOWN]
    if not by_partition:
        sums = [[report.family, *(f"{report.total(name):,}" for name in _SHOWN)] for report in reports]
        print_columns([["family", *names], *sums], numbers_from=1)
        return
    rows = [
        [report.family, *(f"{number:,}" for number in (each.partition, each.begin, each.committed)), *_shown(each)]
        for report in reports
        for _, each in sorted(report.partitions.items())
    ]
    print_columns([["family", "partition", "begin", "committed", *names], *rows], numbers_from=1)


def _shown(each: PartitionReport) -> Iterator[str]:
    return (f"{getattr(each, name):,}" for name in _SHOWN)


def _print_hours(report: FamilyReport, *, by_partition: bool) -> None:
    counts = [Counter[Spot]() for _ in range(3)]
    for count, by_spot in zip(counts, (report.rows_by, report.doubled_by, report.lost_by), strict=True):
        for spot, number in by_spot.items():
            count[_place(spot, by_partition=by_partition)] += number
    places = sorted(set().union(*counts), key=lambda each: (each.partition, each.hour is None, each.hour))
    rows = [
        [
            format_hour(spot.hour) or "unknown",
            *([str(spot.partition)] if by_partition else []),
            *(f"{c[spot]:,}" for c in counts),
        ]
        for spot in places
    ]
    heads = [f"hour of {report.family}", *(["partition"] if by_partition else []), "rows", "doubled", "lost"]
    print_columns([heads, *rows], numbers_from=1)


def _place(spot: Spot, *, by_partition: bool) -> Spot:
    return spot if by_partition else Spot(0, spot.hour)


def _sentence(report: FamilyReport, each: Listed) -> str:
    offsets = f"offset {each.first:,}" if each.first == each.last else f"offsets {each.first:,} to {each.last:,}"
    hours = dict.fromkeys(filter(None, (format_hour(each.first_hour), format_hour(each.last_hour))))
    when = f", hour {' to '.join(hours)}" if hours else ""
    return f"{each.fault}: {report.topic}, partition {each.partition}, {offsets}{when}"


def _remarks(report: FamilyReport) -> Iterator[str]:
    listed = sum(each.last - each.first + 1 for each in report.listed)
    if (more := report.total("lost") + report.total("doubled") - listed) > 0:
        yield f"{more:,} more differences aren't listed; --limit lists more"
    for number, what in (
        (report.total("strange"), "rows are of partitions or offsets that the log doesn't have"),
        (report.total("expired"), "records have no row any more: the table's TTL has expired them"),
        (
            report.total("replaced"),
            "records have no row any more: newer rows of the same key and day have replaced them",
        ),
        (report.unknown_rows, "rows have no coordinates: they were stored before these were added, or by hand"),
        (report.total("unknown"), "records have no row with their coordinates; rows without coordinates may be theirs"),
        (report.other_topics, "rows are of topics with another id: the topic was created anew, or they are a backfill"),
        (report.total("before"), "rows are of records that retention has deleted: they are compared with nothing"),
        (report.total("ahead"), "rows are of records that the group hasn't committed yet"),
        (report.total("deleted"), "records or their dead letters were deleted by retention: nothing is known of them"),
    ):
        if number:
            yield f"{number:,} {what}"
    if report.held_up:
        yield (
            f"inserts into {report.table} are held up: if no replay of it runs, one was killed; run `chimera replay "
            f"{report.family} --execute`, or ALTER TABLE {report.table} RESET SETTING max_parts_in_total"
        )
