"""The definition of session_stats in plain Python, event by event; the columnar windows must give the same rows."""

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

GRACE_MS = 600_000
HOUR_MS = 3_600_000


class Event(NamedTuple):
    """One ui_event."""

    session_id: bytes
    ts: int
    event_type: str
    """open, submit or error."""
    latency_ms: int
    appended_at: int


class Closing(NamedTuple):
    """A closing by the clock: all windows of earlier hours are closed."""

    hour: int


Log = Sequence[Event | Closing]


class Row(NamedTuple):
    """One row of session_stats, in the table's order."""

    hour: int
    session_id: bytes
    avg_latency_ms: int
    error_rate: float
    abandonment_rate: float
    events_count: int
    duration_seconds: int


class LateEvent(NamedTuple):
    """A late event, which is in no window."""

    session_id: bytes
    ts: int
    lateness_ms: int


@dataclass
class Outcome:
    """Outcome of a log."""

    rows: list[Row] = field(default_factory=list)
    """Rows of the closed windows, by hour and session."""
    late: list[LateEvent] = field(default_factory=list)
    missed: dict[tuple[int, bytes], int] = field(default_factory=dict)
    """Number of late events by hour number and session."""


def outcome_of(log: Log) -> Outcome:
    """Return the outcome of a log with the grace of this module."""
    outcome, watermark, in_time = Outcome(), 0, list[Event]()
    for item in log:
        if isinstance(item, Closing):
            watermark = max(watermark, item.hour * HOUR_MS)
            continue
        if item.ts < watermark:
            outcome.late.append(LateEvent(item.session_id, item.ts, watermark - item.ts))
            key = (item.ts // HOUR_MS, item.session_id)
            outcome.missed[key] = outcome.missed.get(key, 0) + 1
        else:
            in_time.append(item)
        watermark = max(watermark, min(item.ts, item.appended_at) - GRACE_MS)
    outcome.rows = [row for row in rows_of(in_time) if (row.hour + 3600) * 1000 <= watermark]
    return outcome


def rows_of(events: Iterable[Event]) -> list[Row]:
    """Return one row per session and hour with events, by hour and session."""
    windows: dict[tuple[int, bytes], list[Event]] = {}
    for event in events:
        windows.setdefault((event.ts // HOUR_MS, event.session_id), []).append(event)
    return [_row(hour, session_id, windows[hour, session_id]) for hour, session_id in sorted(windows)]


def _row(hour: int, session_id: bytes, events: list[Event]) -> Row:
    times = [event.ts for event in events]
    errors = [event for event in events if event.event_type == "error"]
    opens = [event for event in events if event.event_type == "open"]
    return Row(
        hour=hour * 3600,
        session_id=session_id,
        avg_latency_ms=math.floor(Fraction(sum(event.latency_ms for event in events), len(events)) + Fraction(1, 2)),
        error_rate=_float32(len(errors) / len(events)),
        abandonment_rate=_float32(_abandoned(events) / len(opens)) if opens else 0.0,
        events_count=len(events),
        duration_seconds=(max(times) - min(times)) // 1000,
    )


def _abandoned(events: list[Event]) -> int:
    """Return the number of opens whose next event, errors left out, isn't a submit."""
    told = sorted((event.ts, event.event_type) for event in events if event.event_type != "error")
    types = [event_type for _, event_type in told] + ["nothing"]  # at the same time, "open" sorts before "submit"
    return sum(this == "open" and following != "submit" for this, following in pairwise(types))


def _float32(number: float) -> float:
    value: float = struct.unpack("f", struct.pack("f", number))[0]
    return value
