"""Counts and checksums of tables by day: what a restored backup must have.

Rows of records below the noted offsets stay as they are beside live ingest. So they are counted apart from those at or
above, of which a backup may have any. Rows without coordinates, and those of session_stats, all count as below. Days
are counted before and after the backup: where the two differ, somebody else changed the day meanwhile, and only the
bounds are known. A day whose parts are those of the base backup keeps the base's figures, and isn't read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.clickhouse.coordinates import COORDINATES, OFFSET, PARTITION, TOPIC_ID, Source
from pipeline.clickhouse.lookups import all_rows
from pipeline.operations.backup.manifest import Noted

_PARTS = """
SELECT partition, toString(groupBitXor(cityHash64(name, hash_of_all_files))) FROM system.parts
WHERE database = %(database)s AND table = %(table)s AND active GROUP BY partition
"""
_FIGURES = """
SELECT day, countIf(below), toString(sumIf(hash, below)), countIf(NOT below)
FROM (SELECT toString(toDate({time})) AS day, cityHash64({columns}) AS hash, {below} AS below
      FROM `{database}`.`{table}` {final} WHERE {days})
GROUP BY day
"""

Days = dict[str, dict[str, Any]]
"""Figures of one table by day: `rows`, `checksum`, `above`, `parts`, and `stable` once both are known."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A table whose figures are taken.

    Args:
        name: of the table.
        time: column by whose day it is partitioned.
        noted: offsets that its rows are compared with; None for a table without coordinates.
        replaces: True if its engine keeps one row of those with equal keys.
    """

    name: str
    time: str
    noted: Noted | None = None
    replaces: bool = False

    @property
    def below(self) -> str:
        """Condition in SQL that rows of records below the noted offsets meet, and rows of unknown origin."""
        return f"NOT ({at_or_above(self.noted.topic_id, self.noted.offsets)})" if self.noted else "true"


def at_or_above(topic_id: str, offsets: Mapping[int, int]) -> str:
    """Return the condition in SQL that rows of a topic meet whose records are at or above offsets.

    Args:
        topic_id: as Kafka's clients write it.
        offsets: by partition; 0 for partitions that are left out.
    """
    numbers, limits = ", ".join(map(str, offsets)), ", ".join(map(str, offsets.values()))
    limit = (
        f"transform({PARTITION}, CAST([{numbers}], 'Array(UInt16)'), CAST([{limits}], 'Array(UInt64)'), toUInt64(0))"
    )
    source = Source.of(topic_id, 0).topic_id
    return f"{TOPIC_ID} = toUUID('{source}') AND {OFFSET} >= {limit if offsets else '0'}"


def take(
    client: Any, database: str, table: Counted, days: Sequence[str], known: Mapping[str, Mapping[str, Any]]
) -> Days:
    """Return the figures of a table.

    Args:
        client: connected.
        database: of the table.
        table: the table; it exists.
        days: days to look at; empty for all.
        known: earlier figures by day; those of days with the same parts are kept, if no row was above.

    Raises:
        UnavailableError, clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    parts = dict(all_rows(client, _PARTS, {"database": database, "table": table.name}))
    wanted = [day for day in parts if not days or day in days]
    figures: Days = {}
    for day in wanted:
        before = known.get(day)
        if before and before["parts"] == parts[day] and not before["above"]:
            figures[day] = {name: before[name] for name in ("rows", "checksum", "above", "parts")}
    unread = [day for day in wanted if day not in figures]
    for day, rows, checksum, above in _read(client, database, table, unread):
        figures[day] = {"rows": rows, "checksum": checksum, "above": above, "parts": parts.get(day, "")}
    return figures


def compare_takes(before: Mapping[str, Days], after: Mapping[str, Days]) -> dict[str, Days]:
    """Return figures that say of each day if it stayed as it was, with both numbers of rows if it didn't."""
    merged: dict[str, Days] = {}
    for table in before.keys() | after.keys():
        old, new = before.get(table, {}), after.get(table, {})
        merged[table] = {day: _compared(old.get(day), new.get(day)) for day in sorted(old.keys() | new.keys())}
    return merged


def differences(expected: Mapping[str, Any], found: Days) -> list[str]:
    """Return the days of a restored table that don't have their figures, each with its reason in words."""
    lines = []
    for day in sorted(expected.keys() | found.keys()):
        want, have = expected.get(day), found.get(day)
        rows, checksum = (have["rows"], have["checksum"]) if have else (0, "0")
        if want is None:
            if rows:  # a day that began after the figures were taken has rows above alone
                lines.append(f"{day}: {rows:,} rows, expected none")
        elif want["stable"]:
            if rows != want["rows"]:
                lines.append(f"{day}: {rows:,} rows, expected {want['rows']:,}")
            elif checksum != want["checksum"]:
                lines.append(f"{day}: {rows:,} rows as expected, but another checksum: other content")
        elif not min(want["rows"], want["rows_before"]) <= rows <= max(want["rows"], want["rows_before"]):
            lines.append(f"{day}: {rows:,} rows, expected {want['rows_before']:,} to {want['rows']:,}")
    return lines


def _compared(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> dict[str, Any]:
    nothing = {"rows": 0, "checksum": "0", "above": 0, "parts": ""}
    first, last = old or nothing, new or nothing
    stable = (first["rows"], first["checksum"]) == (last["rows"], last["checksum"])
    return {**last, "stable": stable} | ({} if stable else {"rows_before": first["rows"]})


def _read(client: Any, database: str, table: Counted, days: Iterable[str]) -> list[tuple[Any, ...]]:
    listed = ", ".join(f"'{day}'" for day in days)
    if not listed:
        return []
    columns = ", ".join(("*", *COORDINATES) if table.noted else ("*",))
    query = _FIGURES.format(
        time=table.time,
        columns=columns,
        below=table.below,
        database=database,
        table=table.name,
        final="FINAL" if table.replaces else "",
        days=f"toDate({table.time}) IN ({listed})",
    )
    return all_rows(client, query)
