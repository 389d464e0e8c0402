"""The limit on a replay's speed, with a clock of the test's own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.operations.lineage.pace import Pace, limit_of


class _Clock:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def _pace(limit: Callable[[], float | None]) -> tuple[Pace, _Clock]:
    clock = _Clock()
    return Pace(limit, clock=clock, sleep=clock.sleep), clock


def test_records_take_the_time_that_the_limit_says() -> None:
    """A thousand a second."""
    pace, clock = _pace(lambda: 1000.0)
    for _ in range(10):
        pace.wait(500)
    assert clock.now == pytest.approx(5.0)


def test_a_limit_that_changes_counts_within_a_second() -> None:
    """A chunk that waits under the old limit waits less under the new one."""
    limits = iter([10.0, 10.0, *[1000.0] * 100])
    pace, clock = _pace(lambda: next(limits))
    pace.wait(1000)
    assert clock.now < 4.0


def test_without_a_limit_nothing_waits() -> None:
    """The replay is as fast as it can."""
    pace, clock = _pace(lambda: None)
    pace.wait(10**9)
    assert clock.now == 0.0


def test_a_slow_time_gives_no_right_to_a_fast_one() -> None:
    """At most a second's worth is saved up."""
    pace, clock = _pace(lambda: 100.0)
    clock.now = 1000.0
    pace.wait(1000)
    assert clock.now >= 1008.0


def test_a_stop_ends_the_waiting() -> None:
    """Ctrl-C doesn't wait for the limit."""
    pace, clock = _pace(lambda: 1.0)
    pace.wait(1000, lambda: clock.now < 3)
    assert clock.now <= 4.0


def test_a_file_is_read_at_each_call(tmp_path: Path) -> None:
    """While it is being written, the last good number counts."""
    file = tmp_path / "rate"
    file.write_text("100\n")
    limit = limit_of(f"@{file}")
    assert limit() == 100
    file.write_text("2e3")
    assert limit() == 2000
    file.write_text("")
    assert limit() == 2000


@pytest.mark.parametrize("text", ["0", "-5", "fast", "nan", "inf", "@nowhere"])
def test_a_wrong_limit_is_refused(text: str) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match="rows per second"):
        limit_of(text)
