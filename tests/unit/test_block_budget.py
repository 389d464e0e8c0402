"""Shares of a deduplication window: within its horizon, a partition writes no more than its share."""

from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clickhouse.block_budget import LEAST_BLOCKS_A_SECOND, BlockBudget

_HORIZON = 75.0
_SHARE = 1000.0


class _Owner:
    pass


class _Time:
    """A clock that goes on while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def _days(count: int) -> dict[str, Any]:
    return {"ts": np.arange(count) * 86_400_000}


def _budget(share: float | None = _SHARE) -> tuple[BlockBudget, _Time]:
    time = _Time()
    budget = BlockBudget(_HORIZON, clock=lambda: time.now, sleep=time.sleep)
    if share is not None:
        budget.set({"events": share})
    return budget, time


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["insert", "insert", "pass", "move"]), st.integers(1, int(_SHARE / 2))), max_size=60
    )
)
def test_no_more_than_the_share_is_written_within_the_horizon(steps: list[tuple[str, int]]) -> None:
    """Whatever an owner inserts and when, and however often the partition moves."""
    budget, time = _budget()
    owner, written = _Owner(), list[tuple[float, int]]()
    for action, number in steps:
        if action == "insert":
            budget.pay("events", owner, _days(number))
            written.append((time.now, number))
        elif action == "pass":
            time.now += number / 10
        else:
            owner = _Owner()
    for begin, _ in written:
        within = sum(blocks for at, blocks in written if begin <= at <= begin + _HORIZON)
        assert within <= _SHARE + 0.001


def test_half_of_a_share_may_be_written_at_once_after_a_pause() -> None:
    """The rest becomes free evenly; an insert of more days than that waits for all of them."""
    budget, time = _budget()
    owner = _Owner()
    budget.pay("events", owner, _days(1))
    assert time.now == pytest.approx(_HORIZON / 500)
    time.now += 2 * _HORIZON
    waits = []
    for days in (500, 1, 1500):
        began = time.now
        budget.pay("events", owner, _days(days))
        waits.append(time.now - began)
    assert list(accumulate(waits)) == pytest.approx([0, _HORIZON / 500, _HORIZON / 500 * 1501])


def test_a_window_that_does_for_all_needs_no_wait() -> None:
    """Its share is infinite."""
    budget, time = _budget(float("inf"))
    budget.pay("events", _Owner(), _days(100_000))
    assert time.now == 0


def test_the_least_holds_until_the_windows_are_known() -> None:
    """The server was away when they should have been looked at."""
    budget, time = _budget(None)
    budget.pay("events", _Owner(), {"hour": np.array([3600, 7200])})
    assert time.now == pytest.approx(1 / LEAST_BLOCKS_A_SECOND)
