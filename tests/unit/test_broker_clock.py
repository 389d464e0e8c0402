"""The broker's time: a lower bound of it by its last answer, and a new answer for each closing."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs

from pipeline.errors import UnavailableError
from pipeline.rollup.clock import BrokerClock, Clock

_NOON_MS = 1_760_000_400_000


class _Machine:
    """A machine whose clock for durations a test moves, and a broker that it asks."""

    def __init__(self, answer: Callable[[], int | None]) -> None:
        self.seconds = 100.0
        self.asked: list[int] = []
        self._answer = answer
        self.clock = BrokerClock(self._ask, ThreadPoolExecutor(1), Clock(lambda: self.seconds), pause_seconds=5)

    def _ask(self, partition: int) -> int | None:
        self.asked.append(partition)
        return self._answer()

    def refresh(self, partition: int = 0) -> bool:
        return asyncio.run(self.clock.refresh(partition))


def test_the_brokers_time_goes_on_with_the_clock_for_durations() -> None:
    """It is unknown before the first answer; a later answer counts, even if the broker's clock was set back."""
    answers = iter([_NOON_MS, _NOON_MS - 1000])
    machine = _Machine(lambda: next(answers))
    assert machine.clock.now_ms is None
    assert machine.refresh(3)
    machine.seconds += 90.5
    assert machine.clock.now_ms == _NOON_MS + 90_500
    assert machine.refresh(4)
    assert (machine.clock.now_ms, machine.asked) == (_NOON_MS - 1000, [3, 4])


def test_callers_at_the_same_moment_share_an_answer() -> None:
    """Eight idle partitions need one record."""
    machine = _Machine(lambda: _NOON_MS)

    async def ask() -> list[bool]:
        return await asyncio.gather(*map(machine.clock.refresh, range(8)))

    assert asyncio.run(ask()) == [True] * 8
    assert len(machine.asked) == 1


def test_a_silent_broker_is_asked_again_after_a_pause() -> None:
    """There is no time by this machine's clock instead."""
    failures = iter([UnavailableError("silent")])

    def answer() -> int:
        for error in failures:
            raise error
        return _NOON_MS

    machine = _Machine(answer)
    with pytest.raises(UnavailableError):
        machine.refresh()
    assert not machine.clock.may_ask
    assert not machine.refresh()
    assert machine.clock.now_ms is None
    machine.seconds += 5
    assert machine.clock.may_ask
    assert machine.refresh()


def test_timestamps_of_producers_are_no_time() -> None:
    """This machine is the producer: its own time of day would come back. The log says so once."""
    machine = _Machine(lambda: None)
    with capture_logs() as entries:
        for _ in range(3):
            assert not machine.refresh()
            machine.seconds += 5
    assert machine.clock.now_ms is None
    assert ["timestamps: broker" in entry["event"] for entry in entries] == [True]
