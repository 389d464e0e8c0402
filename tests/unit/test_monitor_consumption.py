"""The verdict on a partition, and the age of the first record that isn't consumed, from a window of looks."""

import pytest

from pipeline.operations.monitor.consumption import WINDOW_LOOKS, PartitionWindow, Seen
from pipeline.operations.monitor.state import Consumption


def _window(*looks: tuple[int, int | None], owner: str | None = "worker", begin: int = 0) -> PartitionWindow:
    """Return a window of looks, 5 s apart, each with end and commit."""
    window = PartitionWindow()
    for at, (end, committed) in enumerate(looks):
        window.add(Seen(1000.0 + 5 * at, begin, end, committed, owner))
    return window


@pytest.mark.parametrize(
    ("looks", "owner", "verdict"),
    [
        pytest.param([], "w", Consumption.UNKNOWN, id="not looked at yet"),
        pytest.param([(10, 10)] * 6, "w", Consumption.OK, id="quiet"),
        pytest.param([(10, 10)] + [(20, 10)] * 5, "w", Consumption.OK, id="records have only just come"),
        pytest.param([(20, 10)] * 5, "w", Consumption.OK, id="the window isn't full yet"),
        pytest.param([(20, 10)] * 6, "w", Consumption.STALLED, id="owned, and nothing moves"),
        pytest.param([(20, 10)], None, Consumption.STOPPED, id="no owner"),
        pytest.param([(20 + n, 10) for n in range(6)], None, Consumption.STOPPED, id="no owner, and records come"),
        pytest.param([(20 * n + 20, 10 * n) for n in range(6)], "w", Consumption.WARNING, id="moves, but too slowly"),
        pytest.param([(200, 20 * n) for n in range(6)], "w", Consumption.OK, id="catches up"),
        pytest.param([(20, None)] * 6, "w", Consumption.STALLED, id="never committed, and records wait"),
        pytest.param([(0, None)] * 6, None, Consumption.OK, id="never committed, and no records"),
    ],
)
def test_a_window_is_judged_without_thresholds(
    looks: list[tuple[int, int | None]], owner: str | None, verdict: Consumption
) -> None:
    """Zero lag within the window is well; else the verdict follows from the commits, their lag and the owner."""
    assert len(looks) <= WINDOW_LOOKS
    assert _window(*looks, owner=owner).consumption() is verdict


def test_a_partition_without_a_commit_isnt_without_lag() -> None:
    """All its records are lag, from the log's beginning on."""
    (seen,) = _window((120, None), begin=20)._looks
    assert (seen.lag, seen.lost) == (100, 0)


def test_records_that_retention_deleted_are_lost_and_no_lag() -> None:
    """The lag begins where the log begins; what is missing before it is lost."""
    (seen,) = _window((120, 5), begin=20)._looks
    assert (seen.lag, seen.lost) == (100, 15)


def test_the_ends_of_the_log_tell_when_a_record_came() -> None:
    """Record 15 came halfway between the looks that saw ends of 10 and 20."""
    window = _window((10, 10), (20, 15))
    assert window.unknown is None
    assert window.age(1008.0) == pytest.approx(5.0, abs=0.6)


def test_an_older_record_is_asked_for_once() -> None:
    """A lag from before the first look needs the record's own timestamp, until the commit moves."""
    window = _window((20, 10))
    assert (window.unknown, window.age(1000.0)) == (10, None)
    window.learn(10, 400.0)
    assert (window.unknown, window.age(1000.0)) == (None, 600.0)
    window.add(Seen(1005.0, 0, 20, 12, "worker"))
    assert (window.unknown, window.age(1005.0)) == (12, None)


def test_a_topic_that_is_made_anew_begins_a_new_window() -> None:
    """Offsets of the topic before mean nothing any more."""
    window = _window((100, 90), (100, 90), (5, 0))
    assert len(window._looks) == 1
    assert window.rates() is None


def test_rates_are_those_of_the_window() -> None:
    """Ten seconds: 200 records came, and 100 were consumed."""
    assert _window((0, 0), (100, 50), (200, 100)).rates() == (20.0, 10.0)
