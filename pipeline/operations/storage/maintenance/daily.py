"""Daily: partitions past their retention, parts and merges, compression, slow queries."""

from collections.abc import Iterator

from pipeline.clickhouse.lookups import all_rows
from pipeline.operations.storage.maintenance.queries import slow_queries
from pipeline.operations.storage.maintenance.report import Check, Finding, Period, Subject
from pipeline.operations.storage.recompress import old_days
from pipeline.operations.storage.retention import make_plans
from pipeline.operations.storage.tables import Day, read_days

_MANY_PARTS = 10  # of a day that no insert reaches any more: each query of it opens all of them
_PARTS_IN_DANGER = 1_000  # of a partition: inserts are delayed from 1,000, and refused from 3,000
_LITTLE_RATIO = 1.5
_LARGE_SHARE = 0.1
_MERGES = """
SELECT table, round(elapsed), round(progress, 3), num_parts, total_size_bytes_compressed FROM system.merges
WHERE database = currentDatabase() AND elapsed > 3600
"""
_MUTATIONS = """
SELECT table, command, parts_to_do, latest_fail_reason FROM system.mutations
WHERE database = currentDatabase() AND NOT is_done AND (latest_fail_reason != '' OR create_time < now() - 3600)
"""
_BROKEN = """
SELECT table, reason, count(), sum(bytes_on_disk) FROM system.detached_parts
WHERE database = currentDatabase() AND ifNull(reason, '') != '' GROUP BY table, reason
"""
_COLUMNS = """
SELECT table, name, type, compression_codec, data_compressed_bytes, data_uncompressed_bytes,
    data_compressed_bytes / sum(data_compressed_bytes) OVER (PARTITION BY table) AS share
FROM system.columns
WHERE database = currentDatabase() AND table IN %(tables)s AND data_compressed_bytes > 0
"""


def past_retention(subject: Subject) -> Iterator[Finding]:
    """Yield the days that are older than topics.yaml allows, and the tables whose server doesn't know that."""
    for plan, table in zip(make_plans(subject.settings, subject.client, subject.tables), subject.tables, strict=True):
        if plan.statements:
            yield Finding(
                "the server doesn't have the retention that topics.yaml declares: `chimera storage apply`", plan.table
            )
        if table.retention is None:
            continue
        for day in days_of(subject, table.name):
            if day.age >= table.retention.delete_after_days:
                yield Finding(
                    f"{day.day}, {day.rows:,} rows: {day.age} days old, to delete after "
                    f"{table.retention.delete_after_days}",
                    table.name,
                    {"day": day.day, "rows": day.rows, "bytes": day.size},
                    statement=f"ALTER TABLE `{table.name}` DROP PARTITION ID '{day.partition_id}'",
                )


def days_of(subject: Subject, table: str) -> tuple[Day, ...]:
    """Return the days of a table, on whatever disks."""
    return read_days(subject.client, table, {})


def parts_and_merges(subject: Subject) -> Iterator[Finding]:
    """Yield days with many parts, merges and mutations that take long or fail, and broken parts."""
    for table in subject.tables:
        for day in days_of(subject, table.name):
            figures = {"day": day.day, "parts": day.parts, "bytes": day.size}
            if day.parts >= _PARTS_IN_DANGER:
                yield Finding(
                    f"{day.day} has {day.parts:,} parts: inserts are delayed, and refused from 3,000",
                    table.name,
                    figures,
                    urgent=True,
                )
            elif day.age > 1 and day.parts >= _MANY_PARTS:
                yield Finding(
                    f"{day.day} has {day.parts} parts, which no merge of its own joins soon",
                    table.name,
                    figures,
                    statement=f"OPTIMIZE TABLE `{table.name}` PARTITION ID '{day.partition_id}' FINAL",
                )
    for name, seconds, progress, parts, size in all_rows(subject.client, _MERGES):
        figures = {"seconds": seconds, "progress": progress, "parts": parts, "bytes": size}
        yield Finding(f"a merge of {parts} parts runs for {seconds / 3600:.1f} h, {progress:.0%} done", name, figures)
    for name, command, left, reason in all_rows(subject.client, _MUTATIONS):
        failing = f": {reason}" if reason else ""
        yield Finding(f"mutation {command} has {left} parts to do{failing}", name, {"parts": left}, urgent=bool(reason))
    for name, reason, count, size in all_rows(subject.client, _BROKEN):
        yield Finding(
            f"{count} detached parts, which the server took out for the reason {reason!r}", name, {"bytes": size}
        )


def compression(subject: Subject) -> Iterator[Finding]:
    """Yield columns that are large and hardly compressed, and days in an older form."""
    names = tuple(table.name for table in subject.tables)
    for table, column, kind, codec, small, large, share in all_rows(subject.client, _COLUMNS, {"tables": names}):
        if share >= _LARGE_SHARE and large / small < _LITTLE_RATIO:
            advice = "random by nature; no codec helps" if kind == "UUID" else f"its codec is {codec or 'the default'}"
            yield Finding(
                f"{column} {kind} has {share:.0%} of the table and is compressed {large / small:.1f} to 1: {advice}",
                table,
                {"column": column, "compressed": small, "uncompressed": large},
            )
    for name in names:
        if days := old_days(subject.client, name):
            rows, size = sum(day[2] for day in days), sum(day[3] for day in days)
            yield Finding(
                f"{len(days)} days have the codec or the indexes of an older version: `chimera storage recompress`",
                name,
                {"days": len(days), "rows": rows, "bytes": size},
            )


def slow_of_a_day(subject: Subject) -> Iterator[Finding]:
    """Yield the slow queries of the last day."""
    return slow_queries(subject, days=1)


CHECKS = (
    Check("past_retention", "Partitions past their retention", Period.DAILY, past_retention),
    Check("parts", "Parts and merges", Period.DAILY, parts_and_merges),
    Check("compression", "Compression", Period.DAILY, compression),
    Check("slow_queries", "Slow queries of the last day", Period.DAILY, slow_of_a_day),
)
