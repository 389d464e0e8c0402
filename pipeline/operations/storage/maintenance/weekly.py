"""Weekly: statistics, indexes, and the growth of the storage."""

from collections.abc import Iterator

from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.volumes import VOLUMES
from pipeline.operations.storage.maintenance.daily import days_of
from pipeline.operations.storage.maintenance.queries import logged_days, used_indexes
from pipeline.operations.storage.maintenance.report import Check, Finding, Period, Subject
from pipeline.operations.storage.tables import volumes

_GROWTH_DAYS = 7
_FULL_SOON_DAYS = 30
_FAR_DAYS = 3650
_NEARLY_FULL = 0.85
_USED_DAYS = 30
_WITHOUT_STATISTICS = """
SELECT table, count(DISTINCT name), sum(rows) FROM system.parts_columns
WHERE database = currentDatabase() AND table IN %(tables)s AND active AND rows > 0 AND empty(statistics)
    AND column_position = 1
GROUP BY table ORDER BY table
"""
_INDEXES = """
SELECT table, name, expr, data_compressed_bytes FROM system.data_skipping_indices
WHERE database = currentDatabase() AND table IN %(tables)s AND creation = 'Explicit' ORDER BY table, name
"""
_UNBUILT = """
SELECT partition, partition_id, count() FROM system.parts
WHERE database = currentDatabase() AND table = %(table)s AND active AND rows > 0
    AND secondary_indices_compressed_bytes = 0
GROUP BY partition, partition_id ORDER BY partition
"""
_DISKS = "SELECT name, free_space, total_space FROM system.disks ORDER BY name"


def statistics(subject: Subject) -> Iterator[Finding]:
    """Yield the tables with parts that have no statistics of their columns; the server plans queries with these."""
    for table, parts, rows in all_rows(subject.client, _WITHOUT_STATISTICS, {"tables": _names(subject)}):
        yield Finding(
            f"{parts} parts have no statistics; merges make them, or this statement does",
            table,
            {"parts": parts, "part_rows": rows},
            statement=f"ALTER TABLE `{table}` MATERIALIZE STATISTICS ALL",
        )


def indexes(subject: Subject) -> Iterator[Finding]:
    """Yield days without indexes, and indexes that no logged query uses."""
    found = all_rows(subject.client, _INDEXES, {"tables": _names(subject)})
    logged = logged_days(subject, most=_USED_DAYS)
    for table in sorted({table for table, *_ in found}):
        own = {name: (column, size) for one, name, column, size in found if one == table}
        for day, partition_id, parts in all_rows(subject.client, _UNBUILT, {"table": table}):
            yield Finding(
                f"{day} has {parts} parts without indexes",
                table,
                {"day": day, "parts": parts},
                statement=f"OPTIMIZE TABLE `{table}` PARTITION ID '{partition_id}' FINAL",
            )
        used = used_indexes(subject, table, [column for column, _ in own.values()], days=_USED_DAYS)
        for name, (column, size) in own.items():
            if used is None or name not in used:
                seen = "no logged query reads its column" if used is None else "logged queries don't use it"
                yield Finding(
                    f"index {name} ({column}), {size:,} bytes: {seen} in {logged} day{'s' * (logged > 1)} of the log",
                    table,
                    {"index": name, "bytes": size},
                )


def growth(subject: Subject) -> Iterator[Finding]:
    """Yield size and growth of each table, the space of each disk, and the days until those for new rows are full."""
    daily_total = 0.0
    for table in subject.tables:
        days = days_of(subject, table.name)
        recent = [day.size for day in days if 1 <= day.age <= _GROWTH_DAYS]
        daily = sum(recent) / _GROWTH_DAYS
        daily_total += daily
        if days:
            rows, size = sum(day.rows for day in days), sum(day.size for day in days)
            yield Finding(
                f"{rows:,} rows, {size / 1e6:,.1f} MB, {size / rows:.1f} bytes a row; "
                f"grows by {daily / 1e6:,.1f} MB a day",
                table.name,
                {"rows": rows, "bytes": size, "bytes_a_day": daily},
            )
    slower = {disk for one in volumes(subject.client).values() for name in VOLUMES for disk in one.get(name, ())}
    for disk, free, total in all_rows(subject.client, _DISKS):
        left = free / daily_total if daily_total and disk not in slower else None
        used = 1 - free / total if total else 0.0
        until = "" if left is None else f"; full in {left:,.0f} days at this growth"
        until = f"; not full in {_FAR_DAYS:,} days at this growth" if left is not None and left > _FAR_DAYS else until
        yield Finding(
            f"disk {disk}: {free / 1e9:,.1f} of {total / 1e9:,.1f} GB free{until}",
            figures={"disk": disk, "free": free, "total": total, "days_until_full": left},
            urgent=used > _NEARLY_FULL or (left is not None and left < _FULL_SOON_DAYS),
        )


def _names(subject: Subject) -> tuple[str, ...]:
    return tuple(table.name for table in subject.tables)


CHECKS = (
    Check("statistics", "Statistics", Period.WEEKLY, statistics),
    Check("indexes", "Indexes", Period.WEEKLY, indexes),
    Check("growth", "Storage and growth", Period.WEEKLY, growth),
)
