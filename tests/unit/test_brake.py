"""The brake, along timelines: at second t so many records came, of which so many were rejected."""

import pytest

from pipeline.worker.reject_rate import Brake

_HALF, _WINDOW, _MINIMUM = 0.5, 60.0, 20


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def on_at(timeline: list[tuple[float, int, int]], at: float, ratio: float = _HALF) -> bool:
    """Whether the brake is on at a second, after the (second, records, rejected) before it."""
    clock = Clock()
    brake = Brake(ratio, _WINDOW, _MINIMUM, clock=clock)
    for second, records, rejected in timeline:
        clock.seconds = second
        brake.count(records=records, rejected=rejected)
    clock.seconds = at
    return brake.why is not None


@pytest.mark.parametrize(
    ("timeline", "at", "on"),
    [
        pytest.param([], 0, False, id="nothing came"),
        pytest.param([(0, 100, 0)], 1, False, id="nothing rejected"),
        pytest.param([(0, 100, 50)], 1, False, id="half of them, and not more"),
        pytest.param([(0, 100, 51)], 1, True, id="more than half"),
        pytest.param([(0, 19, 19)], 1, False, id="all, of too few to tell"),
        pytest.param([(0, 20, 20)], 1, True, id="all, of just enough"),
        pytest.param([(0, 10, 10), (30, 10, 10)], 31, True, id="enough within one window"),
        pytest.param([(0, 10, 10), (70, 10, 10)], 71, False, id="not enough within one window"),
        pytest.param([(0, 100, 100)], 58, True, id="still in the window"),
        pytest.param([(0, 100, 100)], 61, False, id="out of the window, with nothing after it"),
        pytest.param([(0, 100, 100), (10, 100, 0)], 11, False, id="outweighed by good ones"),
        pytest.param([(0, 100, 0), (50, 40, 40)], 61, True, id="the good ones leave the window first"),
        pytest.param([(0, 100, 100), (600, 100, 0)], 601, False, id="long ago"),
    ],
)
def test_the_brake_is_on_while_too_many_are_rejected(
    timeline: list[tuple[float, int, int]], at: float, *, on: bool
) -> None:
    """In the window that ends now, if that holds enough to tell; it goes off by itself."""
    assert on_at(timeline, at) == on


def test_a_ratio_of_one_turns_it_off() -> None:
    """More than all can't be rejected."""
    assert not on_at([(0, 100, 100)], 1, ratio=1.0)


def test_it_says_what_it_has_counted() -> None:
    """For the answer at /ready and the log."""
    brake = Brake(_HALF, _WINDOW, _MINIMUM, clock=Clock())
    brake.count(records=2_000, rejected=1_500)
    assert brake.why == "1,500 of 2,000 records rejected in 60 s, more than 50% of them"


def test_memory_is_bounded() -> None:
    """However many micro-batches come in a window, and however long that goes on."""
    clock = Clock()
    brake = Brake(_HALF, _WINDOW, _MINIMUM, clock=clock)
    for tick in range(50_000):
        clock.seconds = tick / 100
        brake.count(records=10, rejected=0)
    assert len(brake._steps) <= 61
