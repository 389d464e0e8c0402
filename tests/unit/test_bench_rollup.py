"""Workload and report of the benchmark of session_stats."""

from collections import Counter
from collections.abc import Iterable
from itertools import chain

import orjson

from benchmarks.rollup.report import Figures, json_line, sentences
from benchmarks.rollup.workload import HOUR_MS, Shape, closing, first_hour, shuffled
from pipeline.config import Settings
from pipeline.producer.sample.stories import Event
from pipeline.rollup.verify import Report

_SHAPE = Shape(events=3_000, sessions=50, hours=3)
_GRACE_MS = 600_000


def _times(events: Iterable[Event]) -> list[int]:
    return [event["ts"] for _, event in events]


def test_events_are_out_of_order_and_never_late() -> None:
    """Every event comes within the grace of the newest; many come after a newer event."""
    newest, overtaken = 0, 0
    for ts in _times(chain(shuffled(_SHAPE, Settings()), closing(_SHAPE, Settings()))):
        assert ts >= newest - _GRACE_MS
        overtaken += ts < newest
        newest = max(newest, ts)
    assert overtaken > _SHAPE.events / 2


def test_events_are_in_their_hours_and_closing_events_after_them() -> None:
    """The watermark passes the end of the last hour, and the hour after it stays open."""
    hours = Counter(ts // HOUR_MS - first_hour() for ts in _times(shuffled(_SHAPE, Settings())))
    assert hours.keys() == {0, 1, 2}
    assert hours.total() == _SHAPE.events
    assert {(ts - _GRACE_MS) // HOUR_MS - first_hour() for ts in _times(closing(_SHAPE, Settings()))} == {3}


def test_every_session_has_events() -> None:
    """The workload has the requested number of sessions."""
    assert len({event["session_id"] for _, event in shuffled(_SHAPE, Settings())}) == _SHAPE.sessions


def test_the_line_of_json_has_null_for_parts_that_did_not_run() -> None:
    """The line of JSON keeps its form without some parts."""
    figures = Figures(_SHAPE, _SHAPE, compared=Report(rows=7))
    assert orjson.loads(json_line(figures)) == {
        "events": 3_000,
        "sessions": 50,
        "rows": 7,
        "differing": 0,
        "rows_per_s_without": None,
        "rows_per_s_with": None,
        "state_mb": None,
        "windows": None,
        "recovery_seconds": None,
    }
    assert len(sentences(figures)) == 1
