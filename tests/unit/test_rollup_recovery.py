"""Reports of a recovery: deleted records and records to replay."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import structlog

from pipeline import metrics
from pipeline.rollup.clock import Clock
from pipeline.rollup.partition import PartitionWindows
from pipeline.rollup.recovery import Recovery, recover
from pipeline.rollup.slots import Loaded
from pipeline.rollup.snapshot import BOUND_FROM, Snapshot
from pipeline.rollup.store import SnapshotStore
from pipeline.transport.broker import TopicPartition
from pipeline.transport.deriver import Takeover

_DAY_MS = 86_400_000
_NEW_YEAR_MS = 1_767_225_600_000  # 2026


def _recovery(beginning: int, committed: int, snapshot_at: int | None) -> Recovery:
    snapshot = Snapshot("id", 0, snapshot_at, _NEW_YEAR_MS, {}) if snapshot_at is not None else None
    return Recovery(TopicPartition("t", 0), snapshot, Takeover("id", beginning, committed, (), committed), Clock())


@pytest.mark.parametrize(
    ("columns", "bound_from"),
    [
        pytest.param(None, 0, id="no snapshot"),
        pytest.param({}, 130, id="of an older version: all that it may have derived"),
        pytest.param({BOUND_FROM: np.array([90])}, 90, id="of this version: as it says"),
    ],
)
def test_an_older_rule_holds_for_what_an_older_version_has_derived(
    columns: dict[str, Any] | None, bound_from: int
) -> None:
    """The rule changes after the last range that the former owner committed, and stays changed there."""
    state = PartitionWindows(600_000).columns()
    snapshot = None if columns is None else Snapshot("id", 0, 50, _NEW_YEAR_MS, state | columns)
    found = {0: Loaded(snapshot, None, ())} if snapshot else {}
    tp = TopicPartition("t", 0)
    store = cast("SnapshotStore", SimpleNamespace(load=lambda *_: found))
    recovered = recover(store, {tp: Takeover("id", 0, 100, (), 130)}, 600_000, Clock())
    derivation, *_ = recovered[tp]
    assert derivation.snapshot("id", 0).columns[BOUND_FROM].tolist() == [bound_from]


def _missing() -> float:
    (family,) = metrics.ROLLUP_RECORDS_MISSING.collect()
    return family.samples[0].value


@pytest.mark.parametrize(
    ("beginning", "committed", "snapshot_at", "missing", "days"),
    [
        pytest.param(70, 100, 50, 20, "2026-01-01, 2026-01-02, 2026-01-03", id="behind the snapshot"),
        pytest.param(
            70, 100, None, 70, "2026-01-03, and all earlier days", id="no snapshot, and something was consumed"
        ),
        pytest.param(50, 100, 50, 0, None, id="all of it is there"),
        pytest.param(0, 100, None, 0, None, id="no snapshot, and the log is whole"),
        pytest.param(70, 70, None, 0, None, id="a new group, which has never had it"),
    ],
)
def test_days_that_may_lack_events_are_named_once(
    beginning: int, committed: int, snapshot_at: int | None, missing: int, days: str | None
) -> None:
    """The days run from the snapshot's watermark to the first events; without a snapshot, the first day is unknown."""
    recovery, before = _recovery(beginning, committed, snapshot_at), _missing()
    events = np.array([_NEW_YEAR_MS + 2 * _DAY_MS + number for number in (5, 3)])
    with structlog.testing.capture_logs() as logs:
        recovery.note(np.zeros(0, np.int64))
        for _ in range(2):
            recovery.note(events)
    assert _missing() - before == missing
    assert [line["days"] for line in logs] == ([days] if days else [])


def test_records_below_the_committed_offset_remain_to_be_replayed() -> None:
    """The number falls to 0, and stays there when the log goes on."""
    recovery = _recovery(0, 100, 40)
    remaining = [recovery.remaining]
    for offset in (60, 100, 150):
        recovery.advance(offset)
        remaining.append(recovery.remaining)
    assert remaining == [60, 40, 0, 0]
