"""session_stats at a moment: its closed hours, in line with ui_events.

The rollup's snapshots tell nothing about the past. So the hours that are closed at a moment follow from the log and the
time: an hour is closed when the watermark of each partition has passed its end, where time goes on in a partition that
was idle. These are the rollup's rules. Rows of later hours are deleted; hours that the recovery has touched, and hours
without rows that were closed between the backup and the moment, are computed again. Others keep the backup's rows.
"""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

from pipeline.catalog import RollupSpec
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.coordinates import PARTITION, TOPIC_ID, Source
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.session_stats import TABLE
from pipeline.config import RollupSettings, Settings
from pipeline.kafka.offsets import TopicReader
from pipeline.operations.backup.figures import at_or_above
from pipeline.operations.backup.moment import MomentCut, Start
from pipeline.operations.lineage.follow import Followed, follow
from pipeline.rollup.horizon import Horizon

_HOUR_MS = 3_600_000
_NEWEST = f"""
SELECT {PARTITION}, toUnixTimestamp64Milli(max(ts)) FROM `{{table}}`
WHERE {TOPIC_ID} = toUUID('{{topic_id}}') AND NOT ({{above}}) GROUP BY {PARTITION}
"""  # noqa: S608 (names of ours)
_WITHOUT_ROWS = f"""
SELECT DISTINCT intDiv(toUnixTimestamp64Milli(ts), {_HOUR_MS}) AS number FROM `{{table}}`
WHERE number >= {{since}} AND number < {{before}}
    AND number NOT IN (SELECT intDiv(toUnixTimestamp(hour), 3600) FROM {TABLE})
"""  # noqa: S608 (as above)


def closed_before(newest_ms: int, appended_ms: int | None, time_ms: int, settings: RollupSettings) -> int:
    """Return the hour before which a partition has closed all hours at a moment, as a number since 1970.

    Args:
        newest_ms: time of its newest event, ms since 1970.
        appended_ms: the broker's timestamp of its last record; None if retention has deleted it.
        time_ms: the moment.
        settings: grace and idle time.
    """
    grace_ms = round(settings.grace_seconds * 1000)
    watermark = min(newest_ms, time_ms) - grace_ms
    idle_ms = time_ms - (appended_ms or 0)
    if idle_ms >= settings.idle_seconds * 1000:
        watermark = max(watermark, min(time_ms - grace_ms, watermark + idle_ms))
    return watermark // _HOUR_MS


def bring_in_line(
    settings: Settings, rollup: RollupSpec, cut: MomentCut, time: datetime, *, start: Start, touched: Collection[int]
) -> tuple[int, list[Followed]]:
    """Bring session_stats in line with ui_events at a moment; it may be repeated.

    Args:
        settings: ClickHouse with the recovered database; the broker.
        rollup: source of session_stats.
        cut: offsets of the source's topic at the moment.
        time: the moment.
        start: backup that the recovery began with.
        touched: hours whose events have changed, as numbers since 1970.

    Returns:
        The hour before which all are closed, and the days that were looked at.

    Raises:
        UnavailableError, HaltError: a server doesn't answer, or refuses.
    """
    table, noted = rollup.source.table, start.record.noted.get(rollup.source.name)
    with explained(settings.clickhouse), connect(settings.clickhouse) as client:
        before, since = _closed(settings, client, table, cut, time), 0
        if noted:
            then = replace(cut, ends={number: noted.offsets.get(number, 0) for number in cut.ends})
            since = _closed(settings, client, table, then, start.record.began_at) - 1
        _delete_from(client, before)
        query = _WITHOUT_ROWS.format(table=table, since=since, before=before)
        missing = {number for (number,) in all_rows(client, query)}
    hours = missing | {number for number in touched if number < before}
    return before, follow(settings, rollup, hours, Horizon(before)) if hours else []


def _closed(settings: Settings, client: Any, table: str, cut: MomentCut, time: datetime) -> int:
    """Return the hour before which all partitions with events have closed all hours."""
    above = at_or_above(cut.topic_id, cut.ends)
    query = _NEWEST.format(table=table, topic_id=Source.of(cut.topic_id, 0).topic_id, above=above)
    hours, time_ms = [], round(time.timestamp() * 1000)
    with TopicReader(settings.kafka, cut.topic, only_committed=True) as reader:
        for number, newest_ms in all_rows(client, query):
            last = cut.ends[number] - 1
            there = last >= cut.begins[number]
            appended = next((record.timestamp()[1] for record in reader.pick(number, [last])), None) if there else None
            hours.append(closed_before(newest_ms, appended, time_ms, settings.rollup))
    return min(hours, default=time_ms // _HOUR_MS)


def _delete_from(client: Any, hour: int) -> None:
    where = f"toUnixTimestamp(hour) >= {hour * 3600}"
    if all_rows(client, f"SELECT count() FROM {TABLE} WHERE {where}")[0][0]:  # noqa: S608 (names of ours)
        client.execute(f"ALTER TABLE {TABLE} DELETE WHERE {where} SETTINGS mutations_sync = 2")
