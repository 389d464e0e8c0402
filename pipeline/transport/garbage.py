"""Garbage collection in a process that holds many records."""

import gc

# The collector visits each record: tens of thousands in a micro-batch, and none is part of a cycle. With Python's own
# threshold of 700 that takes as long as fetching them.
_THRESHOLD = (100_000, 20, 100)


def collect_rarely() -> None:
    """Look for garbage rarely from now on, and never among the objects that exist already."""
    gc.freeze()
    gc.set_threshold(*_THRESHOLD)
