"""Memory goes back to the system when the worker is at rest, once after each time of work."""

import subprocess
import sys

from pipeline.worker.memory import MemoryReturn


def test_memory_is_returned_once_after_work() -> None:
    """A worker that has done nothing since the last time, or is in the middle of work, returns none."""
    now, trimmed = [0.0], list[int]()
    memory = MemoryReturn(trimmed.append, rest_seconds=3.0, clock=lambda: now[0])
    seen = []
    for held in (0, 0, 5, 0, 5, 0, 0, 0, 0, 0, 7, 0, 0, 0):
        if due := memory.due(held):
            memory.run()
        seen.append(due)
        now[0] += 1.0
    assert [second for second, due in enumerate(seen) if due] == [7, 13]
    assert trimmed == [0, 0]


def test_the_c_library_is_asked() -> None:
    """With glibc memory is really returned; another library has no such function, and nothing happens."""
    MemoryReturn().run()


_FAULTS = """
import resource, sys
from pipeline.worker.memory import keep_free_memory
if sys.argv[1] == "kept":
    keep_free_memory()
for turn in range(40):
    if turn == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    columns = [bytearray(b"a") * 3_000_000 for _ in range(3)]
    del columns
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_free_memory_is_kept_for_the_next_columns() -> None:
    """By default the system clears thousands of pages for each of these turns."""
    kept, usual = (int(subprocess.check_output([sys.executable, "-c", _FAULTS, each])) for each in ("kept", "usual"))
    assert kept < 100
    assert usual > 20 * 1000
