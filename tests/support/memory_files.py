"""A directory in memory for the tests' files, on a machine that has enough of it.

The servers of the tests make and remove hundreds of thousands of small files. ext4 doesn't give the number of a removed
file to a new one for minutes: it looks at each of them again whenever it makes a file, which took a twelfth of the
suite's CPU.
"""

import os
from pathlib import Path

import psutil

_IN_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 4 << 30  # twice of what the files of all tests take
_MEMORY_BYTES = 12 << 30  # for the files, and for the servers of four processes


def memory_directory() -> Path | None:
    """Return the directory; None where it, its room or the memory is missing, or no program can be run from it."""
    try:
        facts = os.statvfs(_IN_MEMORY)
    except OSError:
        return None
    runs_programs = not facts.f_flag & os.ST_NOEXEC and os.access(_IN_MEMORY, os.W_OK | os.X_OK)
    enough = facts.f_bavail * facts.f_frsize >= _ROOM_BYTES and psutil.virtual_memory().available >= _MEMORY_BYTES
    return _IN_MEMORY if runs_programs and enough else None
