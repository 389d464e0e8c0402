"""Limit on the records that a replay reads in a second; the limit may change while it runs."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.errors import ConfigError

_LOOK_SECONDS = 1.0


class Pace:
    """Keeps a replay at or below a number of records a second.

    Args:
        limit: returns the limit as it is now; None for no limit. It is asked every second or so.
        clock: seconds, monotonic.
        sleep: waits some seconds.
    """

    def __init__(
        self,
        limit: Callable[[], float | None] = lambda: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._sleep = sleep
        self._owed = 0.0  # records that the limit hasn't allowed yet
        self._at = clock()

    def wait(self, records: int, wanted: Callable[[], bool] = lambda: True) -> None:
        """Wait until this many more records are allowed, or until `wanted` says no."""
        limit = self._pay()
        if limit is not None:
            self._owed = max(self._owed, -limit * _LOOK_SECONDS) + records
        while limit is not None and self._owed > 0 and wanted():
            self._sleep(min(self._owed / limit, _LOOK_SECONDS))
            limit = self._pay()

    def _pay(self) -> float | None:
        """Allow the records of the time since the last call; return the limit."""
        limit, now = self._limit(), self._clock()
        self._owed = 0.0 if limit is None else self._owed - (now - self._at) * limit
        self._at = now
        return limit


def limit_of(text: str | None) -> Callable[[], float | None]:
    """Return a function that gives the limit: of a number, or of `@FILE`, a file with one, read again at each call.

    Raises:
        ConfigError: neither a number above 0, nor a file with one. While a replay runs, the last good number counts.
    """
    if text is None:
        return lambda: None
    if not text.startswith("@"):
        number = _number(text, "--max-rows-per-second")
        return lambda: number
    file = Path(text[1:])
    last = _number(_read(file), str(file))

    def current() -> float:
        nonlocal last
        with suppress(ConfigError):  # somebody is writing it
            last = _number(_read(file), str(file))
        return last

    return current


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: expected a file with a number of rows per second: {error}") from None


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ConfigError(f"{where}: expected a number of rows per second above 0, got {text.strip()[:40]!r}")
    return number
