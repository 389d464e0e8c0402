"""Reachability of one server over time: the looks that succeeded and failed, and since when."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.operations.monitor.state import Health, ServerState


@dataclass(slots=True)
class _Course:
    verdict: Health = Health.UNKNOWN
    since: float | None = None
    looked_at: float | None = None
    reason: str | None = None


class ServerWatch:
    """Notes of one kind of look; safe to use from several threads.

    Args:
        address: of the server, for people.
        silence_seconds: without any result for this time, a look hangs, and the server counts as away.
    """

    def __init__(self, address: str, silence_seconds: float) -> None:
        self._address = address
        self._silence_seconds = silence_seconds
        self._course = _Course()
        self._heard_at: float | None = None
        self._lock = threading.Lock()

    def succeeded(self, at: float) -> None:
        """Note a look that succeeded, in seconds since 1970."""
        with self._lock:
            self._heard_at = self._course.looked_at = at
            self._become(Health.OK, at, None)

    def failed(self, at: float, reason: str) -> None:
        """Note a look that failed."""
        with self._lock:
            self._heard_at = at
            self._become(Health.CRITICAL, at, reason)

    def state(self, now: float) -> ServerState:
        """Return the state at this time."""
        with self._lock:
            if self._heard_at is None:
                self._heard_at = now
            elif now - self._heard_at > self._silence_seconds:
                self._become(Health.CRITICAL, self._heard_at, "no answer, and the look hangs")
            course = self._course
            return ServerState(
                verdict=course.verdict,
                address=self._address,
                since=moment(course.since),
                looked_at=moment(course.looked_at),
                reason=course.reason,
            )

    def _become(self, verdict: Health, at: float, reason: str | None) -> None:
        if verdict is not self._course.verdict:
            self._course.verdict, self._course.since = verdict, at
        self._course.reason = reason


def moment(seconds: float | None) -> datetime | None:
    """Return a time from seconds since 1970; None also for 0, which stands for no time, and beyond the calendar."""
    if not seconds:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
