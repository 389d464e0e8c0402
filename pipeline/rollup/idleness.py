"""Event time of an idle partition: it goes on with the broker's clock."""

from pipeline.config import RollupSettings
from pipeline.rollup.fold import HOUR_MS
from pipeline.rollup.partition import PartitionWindows


def hour_by_clock(windows: PartitionWindows, now_ms: int, quiet_seconds: float, settings: RollupSettings) -> int | None:
    """Return the hour before which all windows of an idle partition are over; None if there is nothing to close.

    In an idle partition event time goes on with the clock, from the time of the last record. After a backfill of old
    events the next hour therefore ends as late as it would have ended with live events.

    Args:
        windows: windows of the partition.
        now_ms: the broker's time, ms since 1970, as the records' timestamps.
        quiet_seconds: time since this worker got its last record; it keeps a wrong clock of a broker from closing
            windows of a busy partition.
        settings: grace and idle time.
    """
    oldest = windows.oldest_hour
    idle_ms = now_ms - windows.newest_appended_at
    if oldest is None or min(quiet_seconds, idle_ms / 1000) < settings.idle_seconds:
        return None
    hour = min(now_ms - round(settings.grace_seconds * 1000), windows.event_watermark + idle_ms) // HOUR_MS
    return hour if oldest < hour else None
