"""A directory in memory for the files of short-lived servers, on a machine that has enough of it.

Servers that make and remove thousands of small files pay for it on ext4 later: it doesn't give the number of a removed
file to a new one for minutes, and looks at each of them again whenever it makes a file. That took a twelfth of the
tests' CPU. In a benchmark, each run would pay for what the runs before it have removed.
"""

import os
from pathlib import Path

from pipeline.devstack.extra import require

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 (tempfile makes directories of its own in it, which others can't enter)
_ROOM_BYTES = 4 << 30  # twice of what the files of all tests take
_MEMORY_BYTES = 12 << 30  # for the files, and for the servers of four processes of pytest


def memory_directory(at: Path = _IN_MEMORY) -> Path | None:
    """Return the directory; None if TMPDIR names another place, or if no program can be run from it.

    None, too, where the directory, its room or the memory is missing.
    """
    if "TMPDIR" in os.environ:
        return None
    try:
        facts = os.statvfs(at)
    except OSError:
        return None
    runs_programs = not facts.f_flag & os.ST_NOEXEC and os.access(at, os.W_OK | os.X_OK)
    memory = require("psutil").virtual_memory().available
    enough = facts.f_bavail * facts.f_frsize >= _ROOM_BYTES and memory >= _MEMORY_BYTES
    return at if runs_programs and enough else None
