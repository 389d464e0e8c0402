"""A derivation moves a partition along its log: it adds events, applies closings, and tells stored hours."""

import numpy as np
import pytest
from support.records import Record, parts_of

from pipeline.catalog import BatchPolicy
from pipeline.columns import Column, DictionaryColumn, Rows
from pipeline.config import RollupSettings
from pipeline.rollup.derivation import Derivation
from pipeline.rollup.fold import HOUR_MS
from pipeline.rollup.idleness import hour_by_clock
from pipeline.rollup.partition import PartitionWindows
from pipeline.rollup.snapshot import BOUND_FROM
from pipeline.transport.commit_metadata import Closing
from pipeline.transport.micro_batch import MicroBatch, State
from pipeline.transport.partition import PartitionBatches

_GRACE_MS = 600_000
_HOUR = 490_000
_NOON = _HOUR * HOUR_MS
_MINUTE = 60_000
_POLICY = BatchPolicy(max_rows=1000, max_bytes=1 << 20, linger_seconds=1.0)


def _batch(
    first: int, times: list[int], *, committed: int = 0, appended_at: int | None = None
) -> tuple[MicroBatch, Rows]:
    """Return a batch of opens of one session at these times; it is replayed if it is below the committed offset.

    The broker's timestamps are the same times, or all the given one.
    """
    state = State(max(first, committed), ())
    owner = PartitionBatches("t", "id", 0, state, policy=_POLICY, limit=2, start=first, agents=2)
    stamps = times if appended_at is None else [appended_at] * len(times)
    owner.add(parts_of(Record(first + number, b".", b"", ts) for number, ts in enumerate(stamps)), 0.0)
    (batch,) = owner.cut(9.0)
    count = len(times)
    columns: dict[str, Column] = {
        "session_id": np.frombuffer(bytes(range(16)) * count, "V16"),
        "ts": np.array(times),
        "event_type": DictionaryColumn(np.zeros(count, np.uint32), [b"overlay_open"]),
        "latency_ms": np.ones(count, np.int64),
    }
    return batch, Rows(columns, np.arange(count), ())


def _derivation(offset: int = 0, *closings: Closing) -> Derivation:
    return Derivation(PartitionWindows(_GRACE_MS), offset, closings)


def _counts(derivation: Derivation) -> dict[int, list[int]]:
    """Return the event counts of the rows of each closed hour."""
    return {
        hour - _HOUR: np.asarray(derivation.rows_of(hour)["events_count"]).tolist()
        for hour in derivation.windows.closed_hours()
    }


def test_a_closing_within_a_micro_batch_applies_at_its_offset() -> None:
    """Offsets 0 1 2 | 3 4: events before the closing count, events after it are late for that hour."""
    derivation = _derivation(0, Closing(3, _HOUR + 1))
    derivation.add(*_batch(0, [_NOON + minute * _MINUTE for minute in (1, 2, 3, 4, 61)]))
    assert _counts(derivation) == {0: [3]}
    assert derivation.offset == 5
    assert np.asarray(derivation.snapshot("id", 0).columns["late.count"]).tolist() == [1]


def test_closings_apply_at_the_ends_of_micro_batches_too() -> None:
    """A closing at the end of the log applies without another record; a closing at the start applies at once."""
    derivation = _derivation(0, Closing(0, _HOUR), Closing(2, _HOUR + 1), Closing(4, _HOUR + 2))
    assert derivation.windows.watermark == _HOUR * HOUR_MS
    derivation.add(*_batch(0, [_NOON, _NOON + 1]))
    assert _counts(derivation) == {0: [2]}
    derivation.add(*_batch(2, [_NOON + 2, _NOON + HOUR_MS]))
    assert _counts(derivation) == {0: [2], 1: [1]}


def test_offsets_without_records_are_passed_with_the_closings_among_them() -> None:
    """Markers of transactions at the end of the log: the snapshot's offset is the end, and closings there apply."""
    derivation = _derivation(0, Closing(3, _HOUR + 1), Closing(9, _HOUR + 2))
    derivation.add(*_batch(0, [_NOON, _NOON + 1]))
    derivation.pass_to(5)
    assert _counts(derivation) == {0: [2]}
    assert derivation.snapshot("id", 0).offset == 5
    derivation.add(*_batch(5, [_NOON + HOUR_MS]))
    assert derivation.offset == 6


def test_events_in_the_snapshot_are_not_added_again() -> None:
    """A micro-batch may end before the snapshot's offset, or contain it."""
    derivation = _derivation(3)
    derivation.add(*_batch(0, [_NOON, _NOON]))
    assert (derivation.offset, derivation.windows.waiting_events) == (3, 0)
    derivation.add(*_batch(0, [_NOON, _NOON, _NOON, _NOON, _NOON]))
    assert (derivation.offset, derivation.windows.waiting_events) == (5, 2)


@pytest.mark.parametrize(("committed", "known"), [(0, False), (2, True)], ids=["new", "replayed"])
def test_hours_of_replayed_events_may_be_stored(committed: int, known: bool) -> None:
    """The earlier owner, with any grace, may have stored hours that have events below the committed offset."""
    derivation = _derivation()
    derivation.add(*_batch(0, [_NOON, _NOON + HOUR_MS], committed=committed))
    assert [derivation.may_be_stored(_HOUR + hour) for hour in (0, 1, 2)] == [known, known, False]


def test_records_of_an_older_version_are_derived_by_its_rule() -> None:
    """Before the offset of the upgrade an event may run ahead by an hour, after it by nothing."""
    ahead, right = _NOON + HOUR_MS, _NOON
    batch, rows = _batch(0, [ahead, right, right, ahead, right], appended_at=_NOON)
    for bound_from, late in ((0, 0), (2, 3), (5, 3)):
        derivation = Derivation(PartitionWindows(_GRACE_MS), 0, (), bound_from)
        derivation.add(batch, rows)
        assert derivation.late == late
        assert derivation.take_counts() == (5, late, 2)
        assert derivation.snapshot("id", 0).columns[BOUND_FROM].tolist() == [bound_from]


def test_the_rule_changes_within_a_micro_batch() -> None:
    """An event that is ahead before the upgrade makes others late; the same event after it makes none late."""
    batch, rows = _batch(0, [_NOON, _NOON + HOUR_MS, _NOON], appended_at=_NOON)
    for bound_from, late in ((1, 0), (2, 1)):
        derivation = Derivation(PartitionWindows(_GRACE_MS), 0, (), bound_from)
        derivation.add(batch, rows)
        assert derivation.late == late


def test_an_hour_with_a_committed_closing_may_be_stored() -> None:
    """The owner that committed the closing may have stored the hour."""
    derivation = _derivation(0, Closing(0, _HOUR + 1))
    assert [derivation.may_be_stored(_HOUR + hour) for hour in (0, 1)] == [True, False]


def _windows(*times: int, appended_at: int | None = None) -> PartitionWindows:
    derivation = _derivation()
    derivation.add(*_batch(0, list(times), appended_at=appended_at))
    return derivation.windows


@pytest.mark.parametrize(
    ("idle_minutes", "quiet_minutes", "closes"),
    [
        pytest.param(4, 4, None, id="not idle for long enough"),
        pytest.param(19, 19, None, id="idle, the hour over, the grace not"),
        pytest.param(20, 20, 1, id="idle, and the grace over"),
        pytest.param(26, 0, None, id="a clock that is ahead of the broker's"),
        pytest.param(90, 5, 2, id="idle under a former owner"),
    ],
)
def test_an_idle_partition_closes_by_the_clock(idle_minutes: int, quiet_minutes: int, closes: int | None) -> None:
    """The last event was at 12:50 and was appended then: with the grace, its hour is over at 13:10."""
    last = _NOON + 50 * _MINUTE
    windows = _windows(_NOON, last)
    now_ms = last + idle_minutes * _MINUTE
    hour = hour_by_clock(windows, now_ms, quiet_minutes * 60, RollupSettings())
    assert hour == (None if closes is None else _HOUR + closes)


def test_old_events_close_after_the_same_idle_time_as_live_ones() -> None:
    """Events were appended two days late: 40 idle minutes after 12:30 are 13:10 in event time, at any clock time."""
    now = _NOON + 48 * HOUR_MS
    windows = _windows(_NOON, _NOON + 30 * _MINUTE, appended_at=now)
    for minutes, hour in ((39, None), (40, _HOUR + 1), (99, _HOUR + 1), (100, _HOUR + 2)):
        seconds = minutes * 60
        assert hour_by_clock(windows, now + seconds * 1000, seconds, RollupSettings()) == hour


def test_event_time_goes_on_from_the_last_event_after_a_closing() -> None:
    """It goes on from the last event at 13:05, not from the watermark that the clock has moved to 13:00."""
    now = _NOON + 48 * HOUR_MS
    windows = _windows(_NOON, _NOON + 65 * _MINUTE, appended_at=now)
    windows.raise_watermark((_HOUR + 1) * HOUR_MS)
    for minutes, hour in ((64, None), (65, _HOUR + 2)):
        assert hour_by_clock(windows, now + minutes * _MINUTE, minutes * 60, RollupSettings()) == hour


def test_a_partition_that_never_had_an_event_has_nothing_to_close() -> None:
    """The idle time doesn't matter."""
    assert hour_by_clock(PartitionWindows(_GRACE_MS), 2 * 10**12, 1e6, RollupSettings()) is None
