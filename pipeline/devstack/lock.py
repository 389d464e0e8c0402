"""Lock of a directory: processes hold it as long as they live, so that a crash leaves no held lock behind."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError, UnavailableError


@contextmanager
def locked(file: Path, what: str) -> Iterator[int]:
    """Hold a lock during the block; create its directory when missing.

    Yields the file descriptor. A child process that inherits it holds the lock too.

    Args:
        file: lock file; it remains when the lock is released.
        what: name of the program that holds the lock, for messages.

    Raises:
        ConfigError: the directory can't be used.
        UnavailableError: another process holds the lock; names it.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"{file.parent}: {error.strerror}; expected a directory for the {what}") from None
    try:
        if not _take(lock, fcntl.LOCK_EX):
            raise UnavailableError(f"{file.parent} is in use by a running {what} (process {holder(file) or 'unknown'})")
        os.ftruncate(lock, 0)  # removes the process id of the former holder
        yield lock
    finally:
        os.close(lock)


def sign(file: Path, pid: int) -> None:
    """Write the id of the process that the lock is held for."""
    file.write_text(str(pid), encoding="utf-8")


def holder(file: Path) -> int | None:
    """Return the id of the process that a lock is held for; None if the lock is free or not signed yet."""
    try:
        with file.open(encoding="utf-8") as lock:
            signature = "" if _take(lock.fileno(), fcntl.LOCK_SH) else lock.read()
    except FileNotFoundError:
        return None
    return int(signature) if signature else None


def _take(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
