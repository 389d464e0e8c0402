"""The windows of session_stats, one edge at a time, drawn as timelines.

A line of a drawing is a session, a column five minutes, so that the grace is two; `|` is where an hour begins:

    a |o.s.........|   a opens the overlay on the hour, and submits a query ten minutes later
    b |...e........|   b has an error at a quarter past
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from support.rollup_reference import GRACE_MS, Closing, Event, LateEvent, Log, outcome_of
from support.rollup_runs import Run, columns, missed, rows

import pipeline
from pipeline.rollup.partition import HOUR_MS, SKEW_MS, PartitionWindows

HOUR = 490_000
START_MS = HOUR * HOUR_MS
COLUMN_MS = 300_000
A, B = b"a" * 16, b"b" * 16
_TYPES = {"o": "open", "s": "submit", "e": "error"}


def _event(event_type: str, ms: int, session_id: bytes = A, *, latency_ms: int = 100, ahead_ms: int = 0) -> Event:
    """Return an event `ms` after the start by its session's clock, which may be ahead of the broker's clock."""
    return Event(session_id, START_MS + ms, event_type, latency_ms, START_MS + ms - ahead_ms)


def _drawn(*lines: str) -> list[Event]:
    """Return the events of a drawing: column by column, and from the first line to the last within a column."""
    events = []
    for line in lines:
        session, drawing = line.split()
        assert re.fullmatch(r"\|([.ose]{12}\|)*[.ose]{0,12}", drawing), "an hour has twelve columns"
        marks = enumerate(drawing.replace("|", ""))
        events += [_event(_TYPES[mark], i * COLUMN_MS, session.encode() * 16) for i, mark in marks if mark != "."]
    return sorted(events, key=lambda event: event.ts)


def _run(log: Log) -> Run:
    """Run the whole log in one batch and store the closed hours; the rows must equal the reference."""
    run = Run(log)
    run.take()
    run.store()
    assert run.rows == outcome_of(log).rows
    return run


class Stats(NamedTuple):
    """Values of a row without the average latency."""

    events: int
    errors: float
    abandoned: float
    seconds: int


def _stats(log: Log) -> dict[str, Stats]:
    """Return the rows' values by session and hour, counted from 0, after all hours of the log are closed."""
    return {
        f"{chr(row.session_id[0])}{row.hour // 3600 - HOUR}": Stats(
            row.events_count, row.error_rate, row.abandonment_rate, row.duration_seconds
        )
        for row in _run([*log, Closing(HOUR + 1000)]).rows
    }


@pytest.mark.parametrize(
    ("drawing", "expected"),
    [
        pytest.param("a |............|o...", {"a1": Stats(1, 0, 1, 0)}, id="on-the-hour-is-in-the-hour-that-begins"),
        pytest.param("a |.....s......|", {"a0": Stats(1, 0, 0, 0)}, id="one-event"),
        pytest.param("a |..........os|.s..", {"a0": Stats(2, 0, 0, 300), "a1": Stats(1, 0, 0, 0)}, id="over-the-hour"),
        pytest.param("a |..e..e.e....|", {"a0": Stats(3, 1, 0, 1500)}, id="only-errors"),
        pytest.param(
            "a |.o.e.s......|", {"a0": Stats(3, float(np.float32(1 / 3)), 0, 1200)}, id="an-error-is-no-next-event"
        ),
        pytest.param("a |.o.e........|", {"a0": Stats(2, 0.5, 1, 600)}, id="never-answered"),
        pytest.param("a |.o.o.s......|", {"a0": Stats(3, 0, 0.5, 1200)}, id="two-opens-then-one-submit"),
        pytest.param("a |.o.s.s......|", {"a0": Stats(3, 0, 0, 1200)}, id="one-open-then-two-submits"),
        pytest.param(
            "a |...........o|s...", {"a0": Stats(1, 0, 1, 0), "a1": Stats(1, 0, 0, 0)}, id="next-is-past-the-hour"
        ),
    ],
)
def test_the_values_of_a_row(drawing: str, expected: dict[str, Stats]) -> None:
    """Events, error rate, abandonment rate and seconds count only the events of their hour."""
    assert _stats(_drawn(drawing)) == expected


def test_the_last_millisecond_of_an_hour_is_in_it() -> None:
    """The next millisecond belongs to the next hour."""
    assert list(_stats([_event("open", HOUR_MS - 1), _event("open", HOUR_MS)])) == ["a0", "a1"]


def test_an_open_comes_before_a_submit_of_the_same_millisecond() -> None:
    """The order in the log doesn't matter."""
    log = [_event("submit", 7), _event("open", 7)]
    assert _stats(log) == _stats(log[::-1]) == {"a0": Stats(2, 0, 0, 0)}


def test_an_open_is_answered_by_a_submit_that_is_folded_later() -> None:
    """Sessions open, have an error and submit; each event is folded before the next arrives. One never submits.

    a |o....e....s.|
    b |o....e......|
    """
    run = Run([*_drawn("a |o....e....s.|", "b |o....e......|"), Closing(HOUR + 1)])
    for _ in run.log:
        run.take(1)
        run.snapshot()
    run.store()
    assert [row.abandonment_rate for row in run.rows] == [0, 1]


def test_an_event_at_the_watermark_is_not_folded_yet() -> None:
    """An open counts before a submit of its millisecond, even after a fold with the watermark at that time.

    a |s...
    b |..s.   moves the watermark to the submit
    a |o...   comes last
    """
    run = Run([*_drawn("a |s", "b |..s"), *_drawn("a |o"), Closing(HOUR + 1)])
    for _ in run.log:
        run.take(1)
        run.snapshot()
    run.store()
    assert [row.abandonment_rate for row in run.rows] == [0, 0]


def test_a_window_closes_when_the_watermark_reaches_its_end() -> None:
    """It closes ten minutes past the hour, to the millisecond.

    a |o...........|.
    b |............|.s   closes it
    """
    opened = _event("open", 0)
    for ms, closed in (HOUR_MS + GRACE_MS - 1, []), (HOUR_MS + GRACE_MS, [HOUR]):
        windows = PartitionWindows(GRACE_MS)
        windows.add(columns([opened, _event("submit", ms, B)]))
        assert windows.closed_hours() == closed
        assert windows.oldest_hour == (HOUR + 1 if closed else HOUR)


def test_an_event_at_the_watermark_is_in_time() -> None:
    """An event one millisecond behind the watermark is late although its hour is open, and is in no row.

    a |...o........|   the watermark is at five past now
    a |.s              in time at five past, late a millisecond before
    """
    watermark = 3 * COLUMN_MS - GRACE_MS
    run = _run([_event("open", 3 * COLUMN_MS), _event("submit", watermark), _event("submit", watermark - 1)])
    assert run.late == [LateEvent(A, START_MS + watermark - 1, 1)]
    assert run.windows.waiting_events + run.windows.open_windows == 2


def test_lateness_is_judged_record_by_record() -> None:
    """Within one batch, an event is in time before another event moves the watermark, and late after it.

    a |o...............   first, and again after b
    b |...s............   in between
    """
    early, mover = _event("open", 0), _event("submit", GRACE_MS + 1, B)
    assert _run([early, mover, early]).late == [LateEvent(A, START_MS, 1)]
    assert _run([early, early, mover]).late == []


def test_a_clock_that_is_far_ahead_closes_nothing() -> None:
    """Its event is counted in its hour, but moves the watermark to the broker's time less the grace at most.

    a |o...........|s
    b |.                 the broker's time of b's event
    b |............|............|............|s   what b's clock says
    """
    ahead_ms = 3 * HOUR_MS - COLUMN_MS
    skewed = _event("submit", 3 * HOUR_MS, B, ahead_ms=ahead_ms)
    run = _run([_event("open", 0), skewed, _event("submit", HOUR_MS)])
    assert run.windows.watermark == START_MS + HOUR_MS - GRACE_MS
    assert (run.rows, run.late, run.windows.skewed) == ([], [], 1)
    assert run.windows.most_ahead_ms == ahead_ms
    assert list(_stats(run.log)) == ["a0", "a1", "b3"]


@pytest.mark.parametrize("ahead_ms", [1, SKEW_MS, GRACE_MS, HOUR_MS - 5, HOUR_MS, 24 * HOUR_MS])
def test_a_clock_that_is_ahead_makes_no_right_event_late(ahead_ms: int) -> None:
    """One session's clock is ahead; the events of the other one reach the broker after all of the grace."""
    log = []
    for column in range(20):
        log += [_event("open", column * COLUMN_MS + ahead_ms, B, ahead_ms=ahead_ms)]
        log += [_event("submit", column * COLUMN_MS - GRACE_MS, A, ahead_ms=-GRACE_MS)]
    run = _run(log)
    assert run.late == []
    assert run.windows.skewed == (20 if ahead_ms > SKEW_MS else 0)


def test_skew_is_more_than_a_short_grace() -> None:
    """A clock that is ahead by less than a minute counts as wrong if the grace is shorter than that."""
    for ahead_ms, skewed in ((2000, 0), (2001, 1)):
        windows = PartitionWindows(2000)
        windows.add(columns([_event("open", 0, ahead_ms=ahead_ms)]))
        assert windows.skewed == skewed


def test_an_hour_without_events_has_no_rows() -> None:
    """The hours before and after it are stored in their order.

    a |...o........|............|s...........|
    """
    windows = PartitionWindows(GRACE_MS)
    windows.add(columns(_drawn("a |...o........|............|s...........|...s")))
    assert windows.closed_hours() == [HOUR, HOUR + 2]


def test_a_partition_without_events_has_nothing() -> None:
    """There is nothing to close, and its snapshot is valid."""
    run = _run([Closing(HOUR)])
    run.snapshot()
    run.crash()
    assert run.windows.watermark == START_MS
    assert (run.windows.closed_hours(), run.windows.oldest_hour, run.windows.newest_appended_at) == ([], None, 0)
    assert (run.windows.open_windows, run.windows.waiting_events) == (0, 0)


def test_a_partition_goes_on_after_a_closing_by_the_clock() -> None:
    """Events behind the closing are late and the row stays; other events are counted.

    a |o...........         closed by the clock at the hour
    a |.s..........|s       two that come after it
    """
    before, behind, beyond = _drawn("a |os..........|s")
    run = _run([before, Closing(HOUR + 1), behind, beyond])
    assert [row.events_count for row in run.rows] == [1]
    assert run.late == [LateEvent(A, behind.ts, HOUR_MS - COLUMN_MS)]
    assert run.windows.oldest_hour == HOUR + 1


def test_closed_windows_stay_until_they_are_removed() -> None:
    """The rows stay the same while more events arrive: a worker that was killed stores them again."""
    run = Run([*_drawn("a |o...........|.....s"), *_drawn("a |............|......s.....|......s.....|")])
    run.take(2)
    run.store(remove=False)
    run.take()
    run.snapshot()
    run.crash()
    run.store()
    assert [row.hour // 3600 - HOUR for row in run.rows] == [0, 1]
    with pytest.raises(KeyError):
        run.windows.rows(HOUR)


def test_the_greatest_latencies_are_averaged_exactly() -> None:
    """Sums of latencies of 2**32 - 1 don't overflow, and halves are rounded up."""
    most = 2**32 - 1
    log = [_event("open", ms, latency_ms=most) for ms in range(1000)]
    log += [_event("open", ms, B, latency_ms=latency_ms) for ms, latency_ms in enumerate([most, most - 1])]
    assert [row.avg_latency_ms for row in _run([*log, Closing(HOUR + 1)]).rows] == [most, most]


def test_sessions_with_half_of_their_id_in_common_are_different() -> None:
    """Ids collide in one half: fourteen halves in all combinations, folded three times."""
    halves = [number.to_bytes(8) for number in range(14)]
    ids = [first + second for first in halves for second in halves]
    order = np.random.default_rng(1).permutation(len(ids)).tolist()
    run = Run([*(_event("open", ms, ids[i]) for ms in (0, GRACE_MS, 2 * GRACE_MS) for i in order), Closing(HOUR + 1)])
    for _ in run.log[:: len(ids)]:
        run.take(len(ids))
        run.snapshot()
    run.store()
    assert [(row.session_id, row.events_count) for row in run.rows] == [(session_id, 3) for session_id in sorted(ids)]


def test_rows_have_the_columns_of_the_table() -> None:
    """The columns have the table's order."""
    definition = (Path(pipeline.__file__).parent / "clickhouse" / "migrations" / "004_session_stats.sql").read_text()
    windows = PartitionWindows(GRACE_MS)
    windows.add(columns([_event("open", 0)]))
    windows.raise_watermark(START_MS + HOUR_MS)
    assert list(windows.rows(HOUR)) == re.findall(r"^    (\w+) \w+,?$", definition, re.MULTILINE)
    assert len(rows(windows, HOUR)) == 1


def test_the_watermark_never_goes_back() -> None:
    """Neither an event nor a closing moves it back."""
    windows = PartitionWindows(GRACE_MS)
    windows.add(columns([_event("open", HOUR_MS)]))
    for change in (
        lambda: windows.raise_watermark(START_MS),
        lambda: windows.add(columns([_event("open", HOUR_MS - 1)])),
    ):
        change()
        assert windows.watermark == START_MS + HOUR_MS - GRACE_MS


def test_events_are_folded_before_their_hour_is_over() -> None:
    """At most twice the events of the grace and one batch wait."""
    windows = PartitionWindows(GRACE_MS, least_folded=10)
    for ms in range(0, HOUR_MS, COLUMN_MS):
        windows.add(columns([_event("open", ms + i) for i in range(10)]))
        assert windows.waiting_events <= 2 * 21 + 10
    assert windows.open_windows == 1


def test_late_events_are_counted_for_the_newest_windows() -> None:
    """The limited number of remembered windows doesn't depend on the batches."""
    log: Log = [
        Closing(HOUR + 6),
        *_drawn("a |o...oo......|............|oo..........|", "b |o...........|.....o......|o"),
        *_drawn("a |o"),
    ]
    counts = {(HOUR + 1, B): 1, (HOUR + 2, A): 2, (HOUR + 2, B): 1}
    for rows_at_once in range(1, 9):
        run = Run(log, most_late_windows=3)
        while run.offset < len(log):
            run.take(rows_at_once)
        run.snapshot()
        assert missed(run.snapshots[0].columns) == counts
