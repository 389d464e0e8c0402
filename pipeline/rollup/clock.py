"""The clocks of the rollup's job: one for durations, and the broker's time. It uses no time of day of this machine."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import structlog

from pipeline.errors import UnavailableError

_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Clock:
    """Time for durations, which a test may replace."""

    monotonic: Callable[[], float] = time.monotonic
    """Seconds that never go back; their zero has no meaning."""


class BrokerClock:
    """The broker's time: the timestamp that it gave to a record, and the time since then.

    It is never ahead of the broker's clock, because the time since then is counted from the broker's answer. It is
    behind by the way of the answer, and by the time for which this machine was suspended.

    Args:
        ask: writes a record for a partition, and returns the broker's timestamp of it in ms since 1970; None if the
            broker sets no timestamps. It blocks.
        pool: thread in which it asks.
        clock: clock for durations.
        pause_seconds: time without a question after one that brought no timestamp.
    """

    def __init__(
        self, ask: Callable[[int], int | None], pool: Executor, clock: Clock, *, pause_seconds: float = _PAUSE_SECONDS
    ) -> None:
        self._ask = ask
        self._pool = pool
        self._clock = clock
        self._pause_seconds = pause_seconds
        self._asking = asyncio.Lock()
        self._asked_at = self._paused_until = float("-inf")
        self._answer: tuple[int, float] | None = None
        self._said_missing = False
        self._log = structlog.get_logger("chimera.rollup")

    @property
    def now_ms(self) -> int | None:
        """The broker's time in ms since 1970; None before the first answer."""
        if self._answer is None:
            return None
        stamped_ms, answered_at = self._answer
        return stamped_ms + round((self._clock.monotonic() - answered_at) * 1000)

    @property
    def may_ask(self) -> bool:
        """False during the pause after a question that brought no timestamp."""
        return self._clock.monotonic() >= self._paused_until

    async def refresh(self, partition: int) -> bool:
        """Ask the broker for its time; callers at the same moment share an answer.

        Args:
            partition: the partition for which the time is needed.

        Returns:
            True if `now_ms` is by an answer to a question that was asked after this call.

        Raises:
            UnavailableError: the broker doesn't answer.
            HaltError: the broker refuses.
        """
        wanted_at = self._clock.monotonic()
        async with self._asking:
            if self._asked_at >= wanted_at:
                return True
            if not self.may_ask:
                return False
            asked_at = self._clock.monotonic()
            try:
                stamped_ms = await asyncio.get_running_loop().run_in_executor(self._pool, partial(self._ask, partition))
            except UnavailableError:
                self._pause()
                raise
            if stamped_ms is None:
                self._say_missing()
                self._pause()
                return False
            self._answer = stamped_ms, self._clock.monotonic()
            self._asked_at, self._said_missing = asked_at, False
            return True

    def _pause(self) -> None:
        self._paused_until = self._clock.monotonic() + self._pause_seconds

    def _say_missing(self) -> None:
        if not self._said_missing:
            self._said_missing = True
            self._log.warning(
                "hours of idle partitions stay open: the state topic has its producers' timestamps, so the broker's "
                "time isn't known; expected `timestamps: broker` in topics.yaml, and `chimera topics apply`"
            )
