"""Closings by the clock: the broker's time decides, and is asked for right before each closing."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pipeline.config import RollupSettings
from pipeline.errors import UnavailableError
from pipeline.rollup.assigned import AssignedPartition
from pipeline.rollup.clock import BrokerClock, Clock
from pipeline.rollup.closing import HourCloser
from pipeline.rollup.derivation import Derivation
from pipeline.rollup.partition import HOUR_MS, Events, PartitionWindows
from pipeline.transport.broker import TopicPartition

_HOUR = 490_000
_LAST_MS = _HOUR * HOUR_MS + 50 * 60_000
_MINUTE_MS = 60_000


class _Worker:
    """A worker with one idle partition, whose last event was at ten to the hour, and a broker with this clock."""

    def __init__(self, broker_ms: Callable[[], int | None]) -> None:
        self.seconds, self.closings = 0.0, list[tuple[int, int]]()
        self._broker_ms = broker_ms
        windows = PartitionWindows(600_000)
        at = np.array([_LAST_MS])
        windows.add(Events(np.frombuffer(b"a" * 16, "V16"), at, np.array([0], np.uint8), np.array([1]), at))
        pool, clock = ThreadPoolExecutor(1), Clock(lambda: self.seconds)
        self.broker_clock = BrokerClock(lambda _: self._broker_ms(), pool, clock)
        self.closer = HourCloser(
            RollupSettings(),
            lambda: cast("Any", self),
            pool,
            clock=clock,
            broker_clock=self.broker_clock,
        )
        tp, derivation = TopicPartition("t", 0), Derivation(windows, 1)
        self.partition = AssignedPartition(tp, "id", derivation, cast("Any", None), (None, None), 0.0, 0.0)

    def held(self, _: TopicPartition) -> Any:
        return SimpleNamespace(topic_id="id", idle_at=self.partition.derivation.offset)

    async def close_by_clock(self, _: TopicPartition, offset: int, hour: int) -> bool:
        self.closings.append((offset, hour - _HOUR))
        return True

    def tick(self, seconds: float) -> None:
        """Let time pass, and close as the rollup does once a second."""
        self.seconds += seconds
        if self.closer.may_close(self.partition):
            asyncio.run(self.closer.close_by_clock(self.partition))


@pytest.mark.parametrize(
    ("minutes", "closings"),
    [
        pytest.param(19, [], id="the grace isn't over"),
        pytest.param(20, [(1, 1)], id="the hour and the grace are over"),
        pytest.param(85, [(1, 2)], id="later"),
    ],
)
def test_the_brokers_clock_decides(minutes: int, closings: list[tuple[int, int]]) -> None:
    """The machine has no say: its clock for durations says that the partition is idle, no more."""
    worker = _Worker(lambda: _LAST_MS + minutes * _MINUTE_MS)
    worker.tick(400)
    assert worker.closings == closings
    assert worker.partition.derivation.windows.watermark // HOUR_MS == (closings[0][1] + _HOUR if closings else _HOUR)


def test_a_closing_that_the_brokers_newest_answer_refutes_is_not_made() -> None:
    """By the first answer and the time since then the hour is over; the broker's clock was set back meanwhile."""
    answers = iter([_LAST_MS + 19 * _MINUTE_MS, _LAST_MS + 15 * _MINUTE_MS])
    worker = _Worker(lambda: next(answers))
    worker.tick(400)
    worker.tick(61)
    assert worker.closings == []
    assert worker.broker_clock.now_ms == _LAST_MS + 15 * _MINUTE_MS


def test_a_suspended_machine_asks_before_it_closes() -> None:
    """Its clock stood still: by its sum the hour isn't over, and nothing is asked until it has run on."""
    now_ms = [_LAST_MS + 15 * _MINUTE_MS]
    worker = _Worker(lambda: now_ms[0])
    worker.tick(400)
    now_ms[0] += 10 * HOUR_MS
    worker.tick(1)
    assert worker.closings == []
    worker.tick(300)
    assert worker.closings == [(1, 10)]


def test_without_the_brokers_time_nothing_is_closed() -> None:
    """A silent broker, and a topic with its producers' timestamps, are asked again after a pause."""

    def silent() -> int:
        raise UnavailableError("silent")

    for answer in (silent, lambda: None):
        worker = _Worker(answer)
        for _ in range(100):
            worker.tick(60)
        assert worker.closings == []


def test_a_partition_that_is_not_idle_is_not_asked_about() -> None:
    """However far ahead the broker's clock is, records came a moment ago."""
    worker = _Worker(lambda: _LAST_MS + 1000 * HOUR_MS)
    worker.tick(299)
    assert worker.broker_clock.now_ms is None
