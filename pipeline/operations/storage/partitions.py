"""Single days of a table: delete them, take them out, and put them back."""

from collections.abc import Iterable
from datetime import date
from typing import Any, NamedTuple

from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.table_lock import TableLock
from pipeline.config import ClickHouseSettings
from pipeline.errors import ChimeraError
from pipeline.operations.storage.tables import Day

_DETACHED = """
SELECT partition_id, count(), sum(bytes_on_disk) FROM system.detached_parts
WHERE database = currentDatabase() AND table = %(table)s AND ifNull(reason, '') = '' AND isNotNull(partition_id)
GROUP BY partition_id ORDER BY partition_id
"""


class DetachedDay(NamedTuple):
    """A day that was taken out of a table; its files are still there."""

    day: str
    partition_id: str
    parts: int
    size: int
    """Bytes on disk."""


class OccupiedDayError(ChimeraError):
    """A day can't be put back, because the table has rows of it; nothing was changed."""


def chosen_days(days: Iterable[Day], *, begin: date | None, end: date | None, only: Iterable[date] = ()) -> list[Day]:
    """Return the days of a span, or those that are named.

    Args:
        days: as `pipeline.operations.storage.tables.read_days` returns them.
        begin: first day; None for no bound.
        end: last day, inclusive; None for no bound.
        only: single days; without any, the span counts.
    """
    named = {str(day) for day in only}
    return [
        day
        for day in days
        if (day.day in named if named else (not begin or day.day >= str(begin)) and (not end or day.day <= str(end)))
    ]


def detached_days(client: Any, table: str) -> tuple[DetachedDay, ...]:
    """Return the days that were taken out of a table and not put back.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    found = all_rows(client, _DETACHED, {"table": table})
    return tuple(
        DetachedDay(f"{name[:4]}-{name[4:6]}-{name[6:]}", name, parts, size)
        for name, parts, size in found
        if len(name) == 8 and name.isdigit()
    )


def change_days(settings: ClickHouseSettings, client: Any, table: str, change: str, ids: Iterable[str]) -> None:
    """Drop or detach days, each in one step. No replay or repair of the table runs meanwhile.

    Args:
        settings: server and database.
        client: connected, with the table's database as default.
        table: its partitions are days.
        change: `DROP` or `DETACH`.
        ids: of the partitions.

    Raises:
        TakenError: a replay or a repair of the table is under way; nothing was changed.
        clickhouse_driver.errors.Error, OSError, EOFError: the server refuses; earlier days are changed.
    """
    with TableLock(settings, table):
        for partition_id in dict.fromkeys(ids):
            client.execute(f"ALTER TABLE `{table}` {change} PARTITION ID '{partition_id}'")


def attach_days(
    settings: ClickHouseSettings, client: Any, table: str, wanted: Iterable[DetachedDay], present: Iterable[Day]
) -> None:
    """Put days back that were taken out.

    Args:
        settings: server and database.
        client: connected, with the table's database as default.
        table: its partitions are days.
        wanted: days to put back.
        present: days of the table.

    Raises:
        OccupiedDayError: the table has rows of such a day, as a replay fills it: they would be stored twice.
        TakenError: a replay or a repair of the table is under way; nothing was changed.
        clickhouse_driver.errors.Error, OSError, EOFError: the server refuses; earlier days are changed.
    """
    days, rows = list(wanted), {day.partition_id: day.rows for day in present}
    with TableLock(settings, table):
        for day in days:
            if rows.get(day.partition_id):
                raise OccupiedDayError(
                    f"table {table}: it has {rows[day.partition_id]:,} rows of {day.day}, which may be the detached "
                    "ones again: expected none; to take the detached ones, drop or detach that day first"
                )
        for day in days:
            client.execute(f"ALTER TABLE `{table}` ATTACH PARTITION ID '{day.partition_id}'")
