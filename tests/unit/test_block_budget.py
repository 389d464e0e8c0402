"""Shares of a deduplication window: within its horizon, a partition writes no more than its share."""

from contextlib import suppress
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clickhouse.block_budget import LEAST_BLOCKS_A_SECOND, BlockBudget
from pipeline.retry import NotYetError

_HORIZON = 75.0
_SHARE = 1000.0
_LEASE = 11.0


class _Owner:
    pass


class _Time:
    """A clock that a test moves on."""

    def __init__(self) -> None:
        self.now = 0.0


def _days(count: int) -> dict[str, Any]:
    return {"ts": np.arange(count) * 86_400_000}


def _budget(share: float | None = _SHARE) -> tuple[BlockBudget, _Time]:
    time = _Time()
    budget = BlockBudget(_HORIZON, clock=lambda: time.now)
    if share is not None:
        budget.set({"events": share})
    return budget, time


def _pay(budget: BlockBudget, time: _Time, owner: object, columns: dict[str, Any]) -> None:
    """Pay as soon as it is allowed."""
    bill = budget.bill("events", owner)
    while True:
        try:
            return bill.pay(columns)
        except NotYetError as error:
            time.now += error.seconds


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["insert", "insert", "insert by the one before", "pass", "move"]),
            st.integers(1, int(_SHARE / 4)),
        ),
        max_size=60,
    )
)
def test_no_more_than_the_share_is_written_within_the_horizon(steps: list[tuple[str, int]]) -> None:
    """Whatever an owner inserts and when, and though the owner before pays for inserts of its own within its lease."""
    budget, time = _budget()
    owner, before, moved_at, written = _Owner(), _Owner(), 0.0, list[tuple[float, int]]()
    for action, number in steps:
        match action:
            case "insert":
                _pay(budget, time, owner, _days(number))
                written.append((time.now, number))
            case "insert by the one before" if time.now - moved_at < _LEASE:
                with suppress(NotYetError):
                    budget.bill("events", before).pay(_days(number))
                    written.append((time.now, number))
            case "pass":
                time.now += number / 10
            case "move" if time.now - moved_at > _HORIZON - _LEASE:
                owner, before, moved_at = _Owner(), owner, time.now
    for begin, _ in written:
        within = sum(blocks for at, blocks in written if begin <= at <= begin + _HORIZON)
        assert within <= _SHARE + 0.001


def test_a_quarter_of_a_share_may_be_written_at_once_after_a_pause() -> None:
    """Half of it becomes free evenly over the horizon; an insert of more days than a quarter waits for all of them."""
    budget, time = _budget()
    owner = _Owner()
    _pay(budget, time, owner, _days(1))
    assert time.now == pytest.approx(_HORIZON / 500)
    time.now += 2 * _HORIZON
    waits = []
    for days in (250, 1, 1500):
        began = time.now
        _pay(budget, time, owner, _days(days))
        waits.append(time.now - began)
    assert list(accumulate(waits)) == pytest.approx([0, _HORIZON / 500, _HORIZON / 500 * 1501])


def test_what_is_paid_stays_paid_while_an_insert_waits() -> None:
    """So smaller inserts of the same partition can't hold up a large one for ever."""
    budget, time = _budget()
    owner = _Owner()
    large = budget.bill("events", owner)
    for _ in range(4):
        with pytest.raises(NotYetError):
            large.pay(_days(1000))
        time.now += _HORIZON / 2  # a quarter of the share becomes free
    large.pay(_days(1000))
    with pytest.raises(NotYetError):
        budget.bill("events", owner).pay(_days(1))


def test_a_window_that_does_for_all_needs_no_wait() -> None:
    """Its share is infinite."""
    budget, _ = _budget(float("inf"))
    budget.bill("events", _Owner()).pay(_days(100_000))


def test_the_least_holds_until_the_windows_are_known() -> None:
    """The server was away when they should have been looked at."""
    budget, time = _budget(None)
    _pay(budget, time, _Owner(), {"hour": np.array([3600, 7200])})
    assert time.now == pytest.approx(1 / LEAST_BLOCKS_A_SECOND)
