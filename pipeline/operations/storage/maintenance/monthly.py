"""Monthly: review of the schema, slow queries of a month, and the capacity that the retention will need."""

from collections.abc import Iterator

from pipeline.clickhouse.lookups import all_rows
from pipeline.operations.storage.maintenance.daily import days_of
from pipeline.operations.storage.maintenance.queries import slow_queries
from pipeline.operations.storage.maintenance.report import Check, Finding, Period, Subject

_FEWEST_ROWS = 100_000
_LOW_CARDINALITY = 10_000  # of a part: above it, ClickHouse's dictionaries don't pay
_FEW_VALUES = 1_000
_UNSIGNED = (("UInt8", 2**8), ("UInt16", 2**16), ("UInt32", 2**32))
_SPAN_DAYS = 30
# Estimates are of the parts' own statistics: no row is read.
_ESTIMATES = """
SELECT table, column, type, sum(rows), max(toFloat64OrNull(toString(`estimates.max`))),
    max(`estimates.cardinality`), sum(column_data_compressed_bytes)
FROM system.parts_columns
WHERE database = currentDatabase() AND table IN %(tables)s AND active AND rows > 0 AND default_kind != 'MATERIALIZED'
GROUP BY table, column, type ORDER BY table, column
"""


def schema_review(subject: Subject) -> Iterator[Finding]:
    """Yield columns whose type is wider than their values, or whose dictionary doesn't pay; or that lack one.

    The types are the specification's: a finding is a question for its next version.
    """
    names = tuple(table.name for table in subject.tables)
    for table, column, kind, rows, most, values, size in all_rows(subject.client, _ESTIMATES, {"tables": names}):
        if rows < _FEWEST_ROWS:
            continue
        figures = {"column": column, "rows": rows, "max": most, "values": values, "bytes": size}
        narrow = next((name for name, end in _UNSIGNED if most is not None and most < end), None)
        if kind in {"UInt16", "UInt32", "UInt64"} and narrow and narrow != kind:
            yield Finding(f"{column} {kind}: its greatest value is {most:,.0f}; {narrow} would do", table, figures)
        if kind.startswith("LowCardinality") and values and values > _LOW_CARDINALITY:
            yield Finding(
                f"{column} {kind}: about {values:,} values in a part; String would be smaller", table, figures
            )
        if kind == "String" and values and values < _FEW_VALUES:
            yield Finding(f"{column} String: about {values:,} values; LowCardinality would be faster", table, figures)


def slow_of_a_month(subject: Subject) -> Iterator[Finding]:
    """Yield the slow queries of the last month, as far as the server keeps them."""
    return slow_queries(subject, days=_SPAN_DAYS)


def capacity(subject: Subject) -> Iterator[Finding]:
    """Yield the size that each table will have at the growth of the last month, by tier, once its retention is full."""
    for table in subject.tables:
        recent = [day for day in days_of(subject, table.name) if 1 <= day.age <= _SPAN_DAYS]
        if not recent or table.retention is None:
            continue
        covered = max(day.age for day in recent)
        daily = sum(day.size for day in recent) / covered
        ages = table.retention
        spans = {
            "hot": ages.warm_after_days,
            "warm": ages.cold_after_days - ages.warm_after_days,
            "cold": ages.delete_after_days - ages.cold_after_days,
        }
        listed = ", ".join(f"{tier} {daily * span / 1e9:,.2f} GB" for tier, span in spans.items())
        yield Finding(
            f"{daily / 1e6:,.1f} MB a day make {listed} once {ages.delete_after_days} days are there",
            table.name,
            {"bytes_a_day": daily, **{f"bytes_{tier}": daily * span for tier, span in spans.items()}},
        )


CHECKS = (
    Check("schema_review", "Schema review", Period.MONTHLY, schema_review),
    Check("performance", "Slow queries of the last month", Period.MONTHLY, slow_of_a_month),
    Check("capacity", "Capacity", Period.MONTHLY, capacity),
)
