"""A directory in memory for the files of short-lived servers, on a machine that has enough of it.

ext4 without a journal, as on small virtual machines, doesn't give the number of a removed file to a new one for
minutes, and looks at each of them again whenever it makes a file. Servers that make and remove thousands of small files
pay for that: a twelfth of the tests' CPU. In a benchmark, each run would pay for what the runs before it have removed.
"""

import os
from pathlib import Path

from pipeline.devstack.extra import require

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 (tempfile makes directories of its own in it, which others can't enter)
_ROOM_BYTES = 4 << 30  # twice of what the files of all tests take
_MEMORY_BYTES = 12 << 30  # for the files, and for the servers of four processes of pytest
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (  # limit and use of a container's memory, by version of the kernel's interface
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def memory_directory(at: Path = _IN_MEMORY, *, cgroup: Path = _CGROUP) -> Path | None:
    """Return the directory; None if TMPDIR is set, or if no program can be run from the directory.

    None, too, where the directory, its room or the memory is missing.
    """
    if os.environ.get("TMPDIR"):
        return None
    try:
        facts = os.statvfs(at)
    except OSError:
        return None
    runs_programs = not facts.f_flag & os.ST_NOEXEC and os.access(at, os.W_OK | os.X_OK)
    enough = facts.f_bavail * facts.f_frsize >= _ROOM_BYTES and _free_memory(cgroup) >= _MEMORY_BYTES
    return at if runs_programs and enough else None


def _free_memory(cgroup: Path) -> int:
    """Return the bytes that the machine, and the limit of a container, leave."""
    free = int(require("psutil").virtual_memory().available)
    for limit, used in _LIMITS:
        try:
            free = min(free, int((cgroup / limit).read_text()) - int((cgroup / used).read_text()))
        except (OSError, ValueError):  # another version, or no limit: "max"
            continue
    return free
