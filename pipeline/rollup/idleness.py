"""How far event time has got in a partition where nothing comes any more."""

from pipeline.config import RollupSettings
from pipeline.rollup.fold import HOUR_MS
from pipeline.rollup.partition import PartitionWindows


def hour_by_clock(
    windows: PartitionWindows, now_seconds: float, quiet_seconds: float, settings: RollupSettings
) -> int | None:
    """The hour before which the windows of an idle partition are over; None when it isn't idle, or that closes nothing.

    In an idle partition event time goes on as the clock does, from where the last record left it: after a backfill of
    old events it takes as long until the next hour is over as it would have taken then.

    Args:
        windows: of the partition.
        now_seconds: since 1970.
        quiet_seconds: for how long nothing has come to this worker; a clock that is ahead closes nothing of a busy one.
        settings: grace, and how long makes idle.
    """
    now_ms, oldest = round(now_seconds * 1000), windows.oldest_hour
    idle_ms = now_ms - windows.newest_appended_at
    if oldest is None or min(quiet_seconds, idle_ms / 1000) < settings.idle_seconds:
        return None
    hour = min(now_ms - round(settings.grace_seconds * 1000), windows.event_watermark + idle_ms) // HOUR_MS
    return hour if oldest < hour else None
