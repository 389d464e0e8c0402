"""Batches, folds, snapshots and crashes don't change the rows of a log.

The reference computes the expected rows event by event; it has no batches, no folds and no snapshots.
"""

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.rollup_reference import GRACE_MS, Closing, Event, Log, outcome_of, rows_of
from support.rollup_runs import Run, missed

from pipeline.rollup.partition import HOUR_MS

pytestmark = pytest.mark.untraced  # other tests reach the same lines, and the tracer doubles the time of many examples

Step = tuple[str] | tuple[str, int]
Drawn = tuple[bytes, str, int, str, int]

HOUR = 490_000
MINUTE_MS = 60_000
# Each id shares its first half with one of the others, and its second half with another one.
SESSIONS = [first + second for first in (b"\0" * 8, b"\xff" * 8) for second in (b"\0" * 8, b"\x80" + b"\1" * 7)]

_PROFILE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 6)),
        st.sampled_from([("store",), ("snapshot",), ("reload",)]),
    ),
    max_size=24,
)
_CRASHES = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 6)),
        st.sampled_from([("store",), ("store without removal",), ("snapshot",), ("crash", 1), ("crash", 2)]),
    ),
    max_size=30,
)
_END: list[Step] = [("take",), ("store",), ("snapshot",)]
_LEAST_FOLDED = st.sampled_from([1, 5, 50_000])


def _event(now: int, drawn: Drawn) -> Event:
    """Return an event near that time, or at the first or last millisecond of an hour; its clock may be wrong."""
    session, event_type, latency_ms, where, ahead_ms = drawn
    hour = now // HOUR_MS * HOUR_MS
    ts = {"here": now, "first": hour, "last": hour + HOUR_MS - 1}[where]
    return Event(session, ts, event_type, latency_ms, ts - ahead_ms)


_EVENTS = st.tuples(
    st.sampled_from([*SESSIONS, SESSIONS[0], SESSIONS[0], SESSIONS[0]]),
    st.sampled_from(["open", "submit", "error"]),
    st.one_of(st.sampled_from([0, 1, 2**32 - 1]), st.integers(0, 2**32 - 1)),
    st.sampled_from(["here", "here", "here", "here", "first", "last"]),
    st.sampled_from([0, 0, 0, 0, 1, GRACE_MS, HOUR_MS, HOUR_MS + 1, 3 * HOUR_MS]),
)
_DELTAS = st.one_of(
    st.sampled_from([0, 0, 1, -1, GRACE_MS, -GRACE_MS, -GRACE_MS - 1]),
    st.integers(-11, 15).map(lambda minutes: minutes * MINUTE_MS),
)


@st.composite
def _logs(draw: st.DrawFn) -> Log:
    """Events with increasing times, some steps back within and beyond the grace, and closings by the clock."""
    drawn = draw(st.lists(st.tuples(_DELTAS, _EVENTS, st.integers(0, 30)), min_size=1, max_size=60))
    log: list[Event | Closing] = []
    for now, (_, event, closing) in zip(
        accumulate((d for d, *_ in drawn), initial=HOUR * HOUR_MS), drawn, strict=False
    ):
        log.append(_event(now, event))
        if closing == 0:
            log.append(Closing(now // HOUR_MS + 1))
    return log


def _run(log: Log, steps: list[Step], least_folded: int) -> Run:
    """Run a log in these steps."""
    run = Run(log, least_folded=least_folded)
    for step in steps:
        match step:
            case ("take", *count):
                run.take(*count)
            case ("store",):
                run.store()
            case ("store without removal",):
                run.store(remove=False)
            case ("snapshot",):
                run.snapshot()
            case ("reload",):
                run.snapshot()
                run.crash()
            case ("crash", back):
                run.crash(back)
    return run


@settings(_PROFILE, max_examples=300)
@given(log=_logs(), steps=_STEPS, least_folded=_LEAST_FOLDED)
def test_batches_folds_and_snapshots_change_no_row(log: Log, steps: list[Step], least_folded: int) -> None:
    """Rows, late events and their counts by window equal the reference."""
    run, expected = _run(log, steps + _END, least_folded), outcome_of(log)
    assert run.rows == expected.rows
    assert run.late == expected.late
    assert missed(run.snapshots[-1].columns) == expected.missed


@settings(_PROFILE, max_examples=300)
@given(log=_logs(), steps=_CRASHES, least_folded=_LEAST_FOLDED)
def test_a_crash_changes_no_row(log: Log, steps: list[Step], least_folded: int) -> None:
    """Restoring the newest or an older snapshot gives the stored rows again, and all others."""
    run, expected = _run(log, steps + _END, least_folded), outcome_of(log)
    assert run.rows == expected.rows
    assert missed(run.snapshots[-1].columns) == expected.missed


@settings(_PROFILE, max_examples=150)
@given(log=_logs(), steps=_STEPS, least_folded=_LEAST_FOLDED)
def test_a_snapshot_is_a_function_of_the_log(log: Log, steps: list[Step], least_folded: int) -> None:
    """The same log gives the same columns, and later events don't change them."""
    run = _run(log, [step for step in [*steps, *_END] if step != ("store",)], least_folded)
    for saved in run.snapshots:
        at_once = Run(log[: saved.offset])
        at_once.take()
        at_once.snapshot()
        assert at_once.windows.watermark == saved.watermark
        for name, column in at_once.snapshots[0].columns.items():
            np.testing.assert_array_equal(saved.columns[name], column, err_msg=name)
            np.testing.assert_array_equal(saved.columns[name], saved.copies[name], err_msg=name)


@settings(_PROFILE, max_examples=200)
@given(
    events=st.lists(st.tuples(st.integers(0, 4 * HOUR_MS), _EVENTS, st.integers(0, GRACE_MS)), min_size=1, max_size=60),
    steps=_STEPS,
    least_folded=_LEAST_FOLDED,
)
def test_any_interleaving_within_the_grace_gives_the_same_rows(
    events: list[tuple[int, Drawn, int]], steps: list[Step], least_folded: int
) -> None:
    """Events delayed by up to the grace are never late, and all are counted."""
    made = [(_event(HOUR * HOUR_MS + now, event), delay_ms) for now, event, delay_ms in events]
    log = [event for event, _ in sorted(made, key=lambda item: item[0].ts + item[1])]
    run = _run([*log, Closing(HOUR + 6)], steps + _END, least_folded)
    assert run.late == []
    assert run.rows == rows_of(log)


@settings(_PROFILE, max_examples=200)
@given(
    events=st.lists(
        st.tuples(st.integers(0, 4 * HOUR_MS), st.integers(0, GRACE_MS), st.integers(0, 24 * HOUR_MS)),
        min_size=1,
        max_size=60,
    ),
    steps=_STEPS,
)
def test_no_clock_that_is_ahead_makes_a_right_event_late(events: list[tuple[int, int, int]], steps: list[Step]) -> None:
    """Each event reaches the broker within the grace; some sessions have clocks that are ahead by up to a day."""
    log = [
        Event(
            SESSIONS[ahead_ms % 2], HOUR * HOUR_MS + now + (ahead_ms % 2) * ahead_ms, "open", 1, HOUR * HOUR_MS + sent
        )
        for sent, now, ahead_ms in sorted((now + delay_ms, now, ahead_ms) for now, delay_ms, ahead_ms in events)
    ]
    run = _run([*log, Closing(HOUR + 48)], steps + _END, 5)
    assert run.late == []
    assert run.rows == rows_of(log)


def test_many_events_are_folded_early_and_give_the_same_rows() -> None:
    """100,000 events of 300 sessions in a little more than an hour, some of them late."""
    random, count = np.random.default_rng(7), 100_000
    times = np.linspace(HOUR * HOUR_MS, (HOUR + 1) * HOUR_MS + 2 * GRACE_MS, count).astype(np.int64)
    delays = random.integers(0, GRACE_MS + MINUTE_MS, count)
    ids = [random.bytes(16) for _ in range(300)]
    log = [
        Event(ids[session], time - delay, event_type, latency_ms, time)
        for session, time, delay, event_type, latency_ms in zip(
            random.integers(0, len(ids), count).tolist(),
            times.tolist(),
            delays.tolist(),
            random.choice(["open", "submit", "error"], count).tolist(),
            random.integers(0, 2**32, count).tolist(),
            strict=True,
        )
    ]
    run, expected, folds = Run(log), outcome_of(log), 0
    while run.offset < len(log):
        waiting, hour = run.windows.waiting_events, run.windows.watermark // HOUR_MS
        run.take(9_000)
        folds += run.windows.waiting_events < waiting and run.windows.watermark // HOUR_MS == hour
    run.store()
    assert folds, "only the end of an hour has led to a fold"
    assert run.rows == expected.rows
    assert run.late == expected.late != []
