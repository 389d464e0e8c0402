"""Shares of late and of skewed events: as metrics, and as a line in the log now and then."""

from typing import NamedTuple

import structlog

from pipeline import metrics
from pipeline.rollup.clock import Clock

_SAY_SECONDS = 60.0
_MANY = 0.01  # share from which a line is a warning


class Counts(NamedTuple):
    """Numbers of events: all of them, the late ones, and those whose clock is ahead."""

    events: int = 0
    late: int = 0
    skewed: int = 0

    def __add__(self, other: "tuple[int, ...]") -> "Counts":  # type: ignore[override] # counts add up
        """Return the sums."""
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Shares:
    """Shares among the events of all partitions of this worker.

    The first line in the log comes at once, and the next one after `say_seconds` at the earliest.

    Args:
        clock: clock for durations.
        say_seconds: time between two lines of one kind, and over which the shares are counted.
    """

    def __init__(self, clock: Clock, *, say_seconds: float = _SAY_SECONDS) -> None:
        self._clock = clock
        self._say_seconds = say_seconds
        self._counts = Counts()
        self._most_ahead_ms = 0
        self._began_at = clock.monotonic()
        self._said_at = float("-inf")
        self._log = structlog.get_logger("chimera.rollup")

    def note(self, counts: Counts, most_ahead_ms: int) -> None:
        """Count events.

        Args:
            counts: numbers of events.
            most_ahead_ms: time by which an event was ahead of the broker's time, at most.
        """
        self._counts += counts
        self._most_ahead_ms = max(self._most_ahead_ms, most_ahead_ms)
        metrics.ROLLUP_EVENTS.inc(counts.events)
        metrics.ROLLUP_SKEWED.inc(counts.skewed)

    def say(self) -> None:
        """Set the metrics, and log the shares if it is time; call it every second."""
        now, (events, late, skewed) = self._clock.monotonic(), self._counts
        over = now - self._began_at >= self._say_seconds
        if events or over:
            metrics.ROLLUP_LATE_RATIO.set(late / max(events, 1))
            metrics.ROLLUP_SKEWED_RATIO.set(skewed / max(events, 1))
        due = (late or skewed) and now - self._said_at >= self._say_seconds
        if due:
            self._said_at = now
            self._log_shares()
        if due or over:
            self._counts, self._began_at, self._most_ahead_ms = Counts(), now, 0

    def _log_shares(self) -> None:
        events, late, skewed = self._counts
        say = self._log.warning if max(late, skewed) >= _MANY * events else self._log.info
        if late:
            say(
                "late events are in no row of session_stats; `chimera rollup verify` names the rows, and "
                "`chimera rollup repair` counts them",
                late=late,
                of=events,
                share=f"{late / events:.1%}",
            )
        if skewed:
            say(
                "events are ahead of the broker's time: they wait for their hour; set the clocks of their producers, "
                "or send UTC",
                skewed=skewed,
                of=events,
                share=f"{skewed / events:.1%}",
                most_ahead_seconds=round(self._most_ahead_ms / 1000),
            )
