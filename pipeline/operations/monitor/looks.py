"""Looks that are made again and again, each in a thread of its own: one that hangs holds up no other."""

import threading
import time
from collections.abc import Callable, Iterable

import structlog

log = structlog.get_logger("chimera.monitor")


class Looks:
    """Threads that look.

    Args:
        looks: called again and again; an exception is logged, and the next call comes all the same.
        interval_seconds: time from the begin of a call to the next one.
    """

    def __init__(self, looks: Iterable[Callable[[], None]], interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._again_and_again, args=(look,), name=look.__name__, daemon=True)
            for look in looks
        ]

    def start(self) -> None:
        """Begin to look."""
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> None:
        """Stop looking; a look under way has this time to end."""
        self._stopping.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _again_and_again(self, look: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                look()
            except Exception:  # a defect of one look must not end the others; it stays visible as silence
                log.exception("a look failed unexpectedly", look=look.__name__)
            self._stopping.wait(max(0.1, self._interval_seconds - (time.monotonic() - began)))
