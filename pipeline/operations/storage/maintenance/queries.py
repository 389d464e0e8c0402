"""Queries that the server has logged: the slow ones, and the indexes that they use."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.clickhouse.client import explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.errors import HaltError, UnclearError
from pipeline.operations.storage.maintenance.report import Finding, Subject
from pipeline.operations.storage.projections import PROJECTIONS, live_projections

_NO_LOG = (
    "the server has no system.query_log: it creates it seconds after its first query, unless its configuration has no "
    "<query_log>"
)
_SLOW_MS = 500
_MOST = 20
# Queries are grouped by their form; a form without its literals tells nothing about any event.
_SLOW = """
SELECT normalized_query_hash, any(normalizeQuery(query)) AS text, count() AS runs,
    round(quantile(0.95)(query_duration_ms)) AS p95_ms, max(query_duration_ms) AS most_ms,
    sum(query_duration_ms) AS all_ms, round(avg(read_rows)) AS read, max(memory_usage) AS memory,
    arrayDistinct(arrayFlatten(groupArray(tables))) AS read_tables
FROM system.query_log
WHERE type = 'QueryFinish' AND query_kind = 'Select' AND event_time > now() - INTERVAL {days} DAY
    AND event_date >= today() - {days} AND has(databases, currentDatabase()) AND client_name NOT LIKE '%chimera%'
GROUP BY normalized_query_hash HAVING p95_ms >= {slow} ORDER BY all_ms DESC LIMIT {most}
"""
_READING = """
SELECT any(query) FROM system.query_log
WHERE type = 'QueryFinish' AND query_kind = 'Select' AND event_time > now() - INTERVAL {days} DAY
    AND has(tables, concat(currentDatabase(), '.', %(table)s)) AND client_name NOT LIKE '%%chimera%%'
    AND hasAny(columns, arrayMap(column -> concat(currentDatabase(), '.', %(table)s, '.', column), %(columns)s))
GROUP BY normalized_query_hash ORDER BY count() DESC LIMIT {most}
"""
_HOURLY = re.compile(r"\b(quantile|p95|uniq|countDistinct|avg)\w*\s*\(", re.IGNORECASE)
_ID = re.compile(r"\b(session_id|run_id|commit_sha)\s*(=|IN)", re.IGNORECASE)
_SKIPPED = re.compile(r"Name: (\w+)")


def slow_queries(subject: Subject, *, days: int) -> Iterator[Finding]:
    """Yield forms of queries whose 95th percentile is over half a second, the costliest first.

    Raises:
        HaltError: the server has no query_log.
    """
    query = _SLOW.format(days=days, slow=_SLOW_MS, most=_MOST)
    for _, text, runs, p95_ms, most_ms, all_ms, read, memory, tables in _logged(subject, query):
        names = sorted(table.partition(".")[2] for table in tables if table.startswith(subject.settings.database))
        yield Finding(
            f"{runs} times, p95 {p95_ms:,.0f} ms, {read:,.0f} rows read each: "
            f"{' '.join(text.split())[:300]} | {advice(subject, text, names)}",
            names[0] if len(names) == 1 else "",
            {"runs": runs, "p95_ms": p95_ms, "max_ms": most_ms, "all_ms": all_ms, "memory": memory, "rows": read},
        )


def advice(subject: Subject, text: str, tables: list[str]) -> str:
    """Return what would help a query: a time, an index, a projection; or a person."""
    projected = [table for table in tables if table in PROJECTIONS]
    if not re.search(r"\b(ts|hour)\b", text.partition("WHERE")[2]):
        return "filter by the time column, so that it reads the days it needs only"
    if "GROUP BY" in text and projected and _HOURLY.search(text):
        if "toStartOfHour(ts)" in text and not live_projections(subject.client, projected[0]):
            return f"`chimera storage projections {projected[0]}` has a projection for it"
        if "toStartOfHour(ts)" not in text:
            return "filter by toStartOfHour(ts) instead of ts, and add a projection: `chimera storage projections`"
    if _ID.search(text):
        return "an index exists: check with EXPLAIN indexes = 1 that it is used, and `chimera storage recompress`"
    return "fewer days, or fewer columns; see EXPLAIN indexes = 1"


def used_indexes(subject: Subject, table: str, columns: list[str], *, days: int) -> set[str] | None:
    """Return the names of a table's indexes that logged queries use; None if no query read these columns.

    Raises:
        HaltError: the server has no query_log.
    """
    wanted = _READING.format(days=days, most=_MOST)
    found = _logged(subject, wanted, {"table": table, "columns": columns})
    used: set[str] = set()
    for (query,) in found:
        try:
            with explained(subject.settings):
                plan = all_rows(subject.client, f"EXPLAIN indexes = 1 {query.rstrip().rstrip(';')}")
        except (HaltError, UnclearError):  # it names a table or a parameter of its own session
            continue
        used.update(_SKIPPED.findall("\n".join(line for (line,) in plan)))
    return used if found else None


def logged_days(subject: Subject, *, most: int) -> int:
    """Return the days that query_log holds, at most so many; servers delete old entries, and new ones have few.

    Raises:
        HaltError: the server has no query_log.
    """
    ((days,),) = _logged(subject, "SELECT dateDiff('day', min(event_date), today()) + 1 FROM system.query_log")
    return min(int(days), most)


def _logged(subject: Subject, query: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """Return the rows of a query that reads query_log.

    Raises:
        HaltError: the server has no query_log.
    """
    ((exists,),) = subject.client.execute("EXISTS TABLE system.query_log")
    if not exists:
        raise HaltError(_NO_LOG)
    return all_rows(subject.client, query, params)
