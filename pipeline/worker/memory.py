"""Memory that a burst took: it goes back to the system when the worker is at rest.

glibc keeps what is freed between blocks that are still used. After some 100 MB of distinct metadata, most of the
process's memory was of that kind, for as long as it ran.
"""

import ctypes
import time
from collections.abc import Callable

_REST_SECONDS = 3.0
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # names of glibc's settings
_KEPT_BYTES = 256 * 1024 * 1024
_OWN_MAPPING_BYTES = 32 * 1024 * 1024
_ARENAS = 2  # by default there are eight for each core, and each keeps free memory of its own


def keep_free_memory() -> None:
    """Let free memory stay with the process while it works; `MemoryReturn` gives it back at rest.

    By default glibc returns the memory of a micro-batch's columns with each micro-batch, and the system clears it anew
    for the next one. Few arenas share what is free among the threads.
    """
    try:
        configure = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    configure(_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
    configure(_TRIM_THRESHOLD, _KEPT_BYTES)
    configure(_ARENA_MAX, _ARENAS)


def _trim() -> Callable[[int], int] | None:
    """Return glibc's `malloc_trim`; None with another C library."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return trim


class MemoryReturn:
    """Returns memory once after each time of work.

    Args:
        trim: gives free memory back to the system; by default glibc's, or nothing. It may take tens of milliseconds,
            and lets other threads run.
        rest_seconds: time without records after which the worker is at rest.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        trim: Callable[[int], object] | None = None,
        *,
        rest_seconds: float = _REST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trim = trim or _trim() or (lambda _: None)
        self._rest_seconds = rest_seconds
        self._clock = clock
        self._worked_at: float | None = None  # None if memory was returned since

    def due(self, held_bytes: int) -> bool:
        """Tell whether memory should be returned now; call it now and then.

        Args:
            held_bytes: bytes of the records that the worker has in memory.
        """
        now = self._clock()
        if held_bytes:
            self._worked_at = now
        return self._worked_at is not None and now - self._worked_at >= self._rest_seconds

    def run(self) -> None:
        """Return free memory to the system, in a thread."""
        self._worked_at = None
        self._trim(0)
