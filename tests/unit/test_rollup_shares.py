"""Shares of late and skewed events: a line at once, then one a minute, and two gauges."""

from typing import Any

from structlog.testing import capture_logs

from pipeline import metrics
from pipeline.rollup.clock import Clock
from pipeline.rollup.shares import Counts, Shares


def _ratio(gauge: Any) -> float:
    (family,) = gauge.collect()
    return float(family.samples[0].value)


def test_shares_are_said_at_once_and_then_once_a_minute() -> None:
    """However many events are late, the log has a line for them and one for the skewed ones."""
    now = [0.0]
    shares = Shares(Clock(lambda: now[0]), say_seconds=60)
    with capture_logs() as entries:
        for second in range(100):
            now[0] = second
            shares.note(Counts(200, 5, 50), 3_600_000)
            shares.say()
    assert [(entry.get("late"), entry.get("skewed"), entry["of"]) for entry in entries] == [
        (5, None, 200),
        (None, 50, 200),
        (300, None, 12_000),
        (None, 3000, 12_000),
    ]
    assert [entry["share"] for entry in entries] == ["2.5%", "25.0%"] * 2
    assert {entry["log_level"] for entry in entries} == {"warning"}
    assert entries[1]["most_ahead_seconds"] == 3600
    assert (_ratio(metrics.ROLLUP_LATE_RATIO), _ratio(metrics.ROLLUP_SKEWED_RATIO)) == (0.025, 0.25)


def test_few_late_events_are_no_warning_and_right_ones_no_line() -> None:
    """The gauges fall to 0 when a minute is right."""
    now = [0.0]
    shares = Shares(Clock(lambda: now[0]), say_seconds=60)
    with capture_logs() as entries:
        shares.note(Counts(1000, 1, 0), 0)
        shares.say()
        for second in range(1, 120):
            now[0] = second
            shares.note(Counts(1000), 0)
            shares.say()
    assert [(entry["log_level"], entry["share"]) for entry in entries] == [("info", "0.1%")]
    assert _ratio(metrics.ROLLUP_LATE_RATIO) == 0
