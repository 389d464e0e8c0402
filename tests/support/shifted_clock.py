"""`python -m support.shifted_clock`: a worker on a machine whose time of day is wrong, or becomes wrong.

Python's clock of the time of day is replaced before anything of the worker is imported.
"""

import os
import sys
import time
from collections.abc import Sequence

_AHEAD, _FROM = "WALL_CLOCK_AHEAD_SECONDS", "WALL_CLOCK_WRONG_FROM_SECONDS"
COMMAND: Sequence[str] = (sys.executable, "-m", "support.shifted_clock")
"""Command of the worker; PYTHONPATH must have the tests."""


def shifted(ahead_seconds: float, from_seconds: float = 0) -> dict[str, str]:
    """Return the environment for a clock that is ahead by that time, as soon as the worker has run for so long."""
    return {_AHEAD: str(ahead_seconds), _FROM: str(from_seconds)}


def _shift(ahead_seconds: float, from_seconds: float) -> None:
    began_at, right, right_ns = time.monotonic(), time.time, time.time_ns

    def ahead() -> float:
        return ahead_seconds if time.monotonic() - began_at >= from_seconds else 0.0

    time.time = lambda: right() + ahead()
    time.time_ns = lambda: right_ns() + int(ahead() * 1e9)


def main() -> None:
    """Run the worker with the clock that the environment asks for."""
    _shift(float(os.environ.pop(_AHEAD)), float(os.environ.pop(_FROM)))
    from faust.cli.faust import cli  # after the clock is replaced

    sys.argv = ["faust", "-A", "pipeline", "worker"]
    cli()


if __name__ == "__main__":
    main()
