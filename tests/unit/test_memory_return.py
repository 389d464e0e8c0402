"""Memory goes back to the system when the worker is at rest, once after each time of work."""

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
