"""Events and rows for the tests of audit and repair of session_stats, and a reference that computes the rows."""

import random
from collections.abc import Iterable, Sequence
from datetime import date
from fractions import Fraction
from typing import NamedTuple
from uuid import UUID

import numpy as np
from clickhouse_driver import Client

from pipeline.rollup.audit import Kind
from pipeline.rollup.horizon import Horizon
from pipeline.rollup.partition import PartitionWindows
from pipeline.rollup.snapshot import Snapshot

HOUR_MS = 3_600_000
DAY = date(2026, 1, 31)
NOON = 491_628
"""Hours from 1970 to noon of that day."""
HUGE = 2**32 - 1
ALL_CLOSED = Horizon(float("inf"))
OPEN, SUBMIT, ERROR = "overlay_open", "query_submit", "error"


class Event(NamedTuple):
    """The relevant columns of a row of ui_events."""

    session: UUID
    ts: int
    type: str
    latency_ms: int


class Row(NamedTuple):
    """A row of session_stats: the hour is a number, rates are the bits of a Float32."""

    hour: int
    session: UUID
    avg_latency_ms: int
    error_rate: int
    abandonment_rate: int
    events_count: int
    duration_seconds: int


def bits(rate: float | Fraction) -> int:
    return int(np.float32(float(rate)).view(np.uint32))


def expected_rows(events: Iterable[Event]) -> list[Row]:
    """Compute the rows of events by the definition, one window at a time."""
    windows: dict[tuple[int, UUID], list[Event]] = {}
    for event in events:
        windows.setdefault((event.ts // HOUR_MS, event.session), []).append(event)
    return [_row(hour, session, own) for (hour, session), own in sorted(windows.items())]


def _row(hour: int, session: UUID, events: Sequence[Event]) -> Row:
    ordered = sorted(events, key=lambda event: (event.ts, event.type == SUBMIT))
    types = [event.type for event in ordered if event.type != ERROR]
    answers = [later for earlier, later in zip(types, [*types, ""][1:], strict=True) if earlier == OPEN]
    abandoned = Fraction(sum(answer != SUBMIT for answer in answers), len(answers) or 1)
    mean = Fraction(sum(event.latency_ms for event in events), len(events))
    return Row(
        hour,
        session,
        int(mean + Fraction(1, 2)),
        bits(Fraction(len(events) - len(types), len(events))),
        bits(abandoned),
        len(events),
        (ordered[-1].ts - ordered[0].ts) // 1000,
    )


def store_events(client: Client, events: Iterable[Event]) -> None:
    rows = [(event.session, event.ts, event.type, event.latency_ms) for event in events]
    client.execute(
        "INSERT INTO ui_events (session_id, ts, event_type, latency_ms) SELECT s, fromUnixTimestamp64Milli(t, 'UTC'), "
        "e, l FROM input('s UUID, t Int64, e String, l UInt32') FORMAT Native",
        rows,
    )


def store_rows(client: Client, rows: Iterable[Row]) -> None:
    client.execute(
        "INSERT INTO session_stats SELECT toDateTime(h * 3600), s, a, reinterpretAsFloat32(e), "
        "reinterpretAsFloat32(b), n, d "
        "FROM input('h UInt32, s UUID, a UInt32, e UInt32, b UInt32, n UInt32, d UInt32') FORMAT Native",
        [tuple(row) for row in rows],
        settings={"insert_deduplicate": 0},
    )


def stored_rows(client: Client) -> list[Row]:
    return sorted(
        Row(*values)
        for values in client.execute(
            "SELECT intDiv(toUnixTimestamp(hour), 3600), session_id, avg_latency_ms, reinterpretAsUInt32(error_rate), "
            "reinterpretAsUInt32(abandonment_rate), events_count, duration_seconds FROM session_stats"
        )
    )


def uuid(number: int) -> UUID:
    return UUID(int=number * 0x1234_5678_9ABC_DEF0_1234_5678_9ABC % 2**128)


def random_events(seed: int, count: int = 4000, sessions: int = 300, hours: int = 3) -> list[Event]:
    """Return crowded random events: many share a millisecond, and many are on or next to the full hour."""
    chance = random.Random(seed)
    moments = [hour * HOUR_MS + offset for hour in range(hours) for offset in (0, 1, 999, 1000, HOUR_MS - 1)]
    return [
        Event(
            uuid(chance.randrange(sessions)),
            NOON * HOUR_MS + chance.choice([chance.randrange(hours * HOUR_MS), chance.choice(moments)]),
            chance.choice([OPEN, OPEN, SUBMIT, ERROR]),
            chance.choice([0, 1, 2, 3, chance.randrange(5000), HUGE]),
        )
        for _ in range(count)
    ]


def tables(client: Client) -> set[str]:
    return {name for (name,) in client.execute("SHOW TABLES")}


def break_rows(rows: list[Row]) -> tuple[list[Row], dict[UUID, tuple[Kind, tuple[str, ...]]]]:
    """Break one row in each way; return all rows, and the expected kind and columns of each broken one."""
    rates = np.array([row.error_rate for row in rows], np.uint32).view(np.float32)
    neighbour = int(np.nextafter(rates[2], np.float32(2)).view(np.uint32))
    nan, minus_zero = bits(float("nan")), bits(-0.0)
    plain = next(index for index, row in enumerate(rows) if index > 8 and row.abandonment_rate == 0)
    extra = Row(NOON, uuid(999_999), HUGE, nan, nan, HUGE, HUGE)
    changes: list[tuple[int, list[Row], Kind, tuple[str, ...]]] = [
        (0, [], Kind.MISSING, ()),
        (1, [rows[1], rows[1]], Kind.SPLIT, ()),
        (2, [rows[2]._replace(error_rate=neighbour)], Kind.DIFFERING, ("error_rate",)),
        (3, [rows[3]._replace(abandonment_rate=nan)], Kind.DIFFERING, ("abandonment_rate",)),
        (4, [rows[4]._replace(avg_latency_ms=rows[4].avg_latency_ms ^ 1)], Kind.DIFFERING, ("avg_latency_ms",)),
        (5, [rows[5]._replace(events_count=HUGE)], Kind.DIFFERING, ("events_count",)),
        (6, [rows[6]._replace(duration_seconds=HUGE)], Kind.DIFFERING, ("duration_seconds",)),
        (plain, [rows[plain]._replace(abandonment_rate=minus_zero)], Kind.DIFFERING, ("abandonment_rate",)),
    ]
    found = {rows[index].session: (kind, names) for index, _, kind, names in changes}
    touched = {index for index, *_ in changes}
    kept = [row for index, row in enumerate(rows) if index not in touched]
    broken = [row for _, instead, *_ in changes for row in instead]
    return [*kept, *broken, extra], found | {extra.session: (Kind.EXTRA, ())}


def horizon_with_late(counts: dict[tuple[int, UUID], int]) -> Horizon:
    """Return a horizon with all hours closed and these numbers of late events by window."""
    return Horizon(float("inf"), (snapshot_at_rest("t", 0, 1, 10**15, counts),))


def snapshot_at_rest(
    topic_id: str, partition: int, offset: int, watermark: int, late: dict[tuple[int, UUID], int] | None = None
) -> Snapshot:
    """Return a snapshot of a partition without open windows."""
    late = late or {}
    columns = dict(PartitionWindows(600_000).columns())
    columns["late.hour"] = np.array([hour for hour, _ in late], np.int64)
    columns["late.session_id"] = np.frombuffer(b"".join(session.bytes for _, session in late), "V16")
    columns["late.count"] = np.array(list(late.values()), np.int64)
    return Snapshot(topic_id, partition, offset, watermark, columns)


def broken_day(client: Client) -> list[Row]:
    """Store an hour of events without rows; return the rows that a repair must make."""
    events = random_events(6, count=50, hours=1)
    store_events(client, events)
    return expected_rows(events)
