"""The reject rate along timelines: at each second some records come, and some of them are rejected."""

import pytest

from pipeline.worker.reject_rate import RejectRate

_HALF, _WINDOW, _MINIMUM = 0.5, 60.0, 20


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def high_at(timeline: list[tuple[float, int, int]], at: float, limit: float = _HALF) -> bool:
    """Tell whether the rate is above the limit at a second, after a timeline of (second, records, rejected)."""
    clock = Clock()
    rate = RejectRate(limit, _WINDOW, _MINIMUM, clock=clock)
    for second, records, rejected in timeline:
        clock.seconds = second
        rate.count(records=records, rejected=rejected)
    clock.seconds = at
    return rate.excess is not None


@pytest.mark.parametrize(
    ("timeline", "at", "high"),
    [
        pytest.param([], 0, False, id="no records"),
        pytest.param([(0, 100, 0)], 1, False, id="none rejected"),
        pytest.param([(0, 100, 50)], 1, False, id="exactly half"),
        pytest.param([(0, 100, 51)], 1, True, id="more than half"),
        pytest.param([(0, 19, 19)], 1, False, id="all, but fewer than the minimum"),
        pytest.param([(0, 20, 20)], 1, True, id="all, and just the minimum"),
        pytest.param([(0, 10, 10), (30, 10, 10)], 31, True, id="the minimum within one window"),
        pytest.param([(0, 10, 10), (70, 10, 10)], 71, False, id="the minimum, but not within one window"),
        pytest.param([(0, 100, 100)], 58, True, id="still in the window"),
        pytest.param([(0, 100, 100)], 61, False, id="out of the window, and none after it"),
        pytest.param([(0, 100, 100), (10, 100, 0)], 11, False, id="as many valid ones later"),
        pytest.param([(0, 100, 0), (50, 40, 40)], 61, True, id="the valid ones leave the window first"),
        pytest.param([(0, 100, 100), (600, 100, 0)], 601, False, id="long ago"),
    ],
)
def test_the_rate_is_high_while_too_many_records_are_rejected(
    timeline: list[tuple[float, int, int]], at: float, *, high: bool
) -> None:
    """The rate counts the window that ends now, if that holds enough records; it falls by itself."""
    assert high_at(timeline, at) == high


def test_a_limit_of_one_is_never_exceeded() -> None:
    """No more than all records can be rejected."""
    assert not high_at([(0, 100, 100)], 1, limit=1.0)


def test_the_excess_names_the_counts_and_the_limit() -> None:
    """The text is for /ready and the log."""
    rate = RejectRate(_HALF, _WINDOW, _MINIMUM, clock=Clock())
    rate.count(records=2_000, rejected=1_500)
    assert rate.excess == "1,500 of 2,000 records rejected in 60 s, more than 50% of them"


def test_memory_is_bounded() -> None:
    """The number of steps doesn't grow with the micro-batches of a window, nor with time."""
    clock = Clock()
    rate = RejectRate(_HALF, _WINDOW, _MINIMUM, clock=clock)
    for tick in range(50_000):
        clock.seconds = tick / 100
        rate.count(records=10, rejected=0)
    assert len(rate._steps) <= 61
