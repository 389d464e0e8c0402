"""Who runs in a directory: a lock that processes hold for as long as they live, so that a crash leaves none behind."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError, UnavailableError


@contextmanager
def locked(file: Path, what: str) -> Iterator[int]:
    """Hold a lock for the time of the block, in a directory that is made when missing.

    Yields its descriptor: a process that inherits it goes on holding the lock.

    Args:
        file: the lock; it stays behind, held or not.
        what: what runs while the lock is held, for messages.

    Raises:
        ConfigError: the directory is unusable.
        UnavailableError: somebody else holds it; says which process.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"{file.parent}: {error.strerror}; expected a directory for the {what}") from None
    try:
        if not _take(lock, fcntl.LOCK_EX):
            raise UnavailableError(f"{file.parent} is in use by a running {what} (process {holder(file) or 'unknown'})")
        os.ftruncate(lock, 0)  # the former holder's signature
        yield lock
    finally:
        os.close(lock)


def sign(file: Path, pid: int) -> None:
    """Write down which process the lock is held for."""
    file.write_text(str(pid), encoding="utf-8")


def holder(file: Path) -> int | None:
    """The process that a lock is held for now; None when nobody holds it, whatever it says, or hasn't signed yet."""
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
