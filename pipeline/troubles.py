"""Troubles of the worker: what keeps records from flowing, who says so, since when, and how often it was tried.

All parts report to one object, and each ends what it reported. /ready has one line for each part in trouble. The log
has one line when a part's trouble begins and one when it ends, however often it tries meanwhile.
"""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import structlog


@dataclass(slots=True)
class _Trouble:
    """Trouble of one part; several of its steps may have it."""

    since: float
    cause: str
    attempts: int
    usual: bool
    steps: set[Hashable] = field(default_factory=set)


class Troubles:
    """Troubles by part; several threads may use it.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._troubles: dict[str, _Trouble] = {}
        self._log = structlog.get_logger("chimera.troubles")  # not bound: the log may be configured later than this

    def report(
        self,
        part: str,
        cause: str,
        *,
        step: Hashable = None,
        attempts: int = 0,
        seconds: float = 0.0,
        usual: bool = False,
    ) -> None:
        """Report that a part is in trouble; call it again for each attempt.

        Args:
            part: family, table or server; a small set, because it labels a metric.
            cause: the reason on one line, with the server's address.
            step: what has the trouble; it lasts until each step that has reported it has ended it.
            attempts: number of failed attempts of this step; 0 if nothing is tried.
            seconds: time for which it has lasted already.
            usual: True for what is no reason to look, such as a rebalance; the log has it at level DEBUG.
        """
        with self._lock:
            trouble = self._troubles.get(part)
            if begins := trouble is None or (trouble.usual and not usual):
                steps = trouble.steps if trouble else set[Hashable]()
                trouble = self._troubles[part] = _Trouble(self._clock() - seconds, cause, attempts, usual, steps)
            assert trouble is not None
            if trouble.usual or not usual:
                trouble.cause = cause
            trouble.attempts = max(trouble.attempts, attempts)
            trouble.steps.add(step)
        if begins:
            (self._log.debug if usual else self._log.warning)("trouble begins", part=part, cause=cause)

    def end(self, part: str, *, step: Hashable = None) -> None:
        """End the trouble of a step; nothing happens if it has none."""
        with self._lock:
            trouble = self._troubles.get(part)
            if trouble is None or step not in trouble.steps:
                return
            trouble.steps.discard(step)
            if trouble.steps:
                return
            del self._troubles[part]
            seconds = round(self._clock() - trouble.since, 1)
        attempts = {"attempts": trouble.attempts} if trouble.attempts else {}
        say = self._log.debug if trouble.usual else self._log.warning
        say("trouble is over", part=part, cause=trouble.cause, seconds=seconds, **attempts)

    def note(self, part: str, cause: str | None, *, seconds: float = 0.0, usual: bool = False) -> None:
        """Report a trouble, or end it when there is no cause; for parts that are looked at again and again."""
        if cause is None:
            self.end(part)
        else:
            self.report(part, cause, seconds=seconds, usual=usual)

    @property
    def lines(self) -> list[str]:
        """One line for each part in trouble, the oldest first: part, cause, seconds, attempt that is due."""
        now = self._clock()
        with self._lock:
            troubles = sorted(self._troubles.items(), key=lambda item: item[1].since)
            return [_line(part, trouble, now) for part, trouble in troubles]

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds for which each part in trouble has had it, by part."""
        now = self._clock()
        with self._lock:
            return {part: now - trouble.since for part, trouble in self._troubles.items()}


def _line(part: str, trouble: _Trouble, now: float) -> str:
    attempt = f", attempt {trouble.attempts + 1}" if trouble.attempts else ""
    return f"{part}: {trouble.cause}, {now - trouble.since:.0f} s{attempt}"
