"""Keeps a server: its parent and reaper, and the one who stops it when whoever wanted it is gone.

usage: python -I -S keeper.py GRACE_SECONDS COMMAND...

Prints the server's process id, then waits. When its standard input ends, because the process at the other end of the
pipe closed it or died, however suddenly, the server is asked to stop (SIGTERM) and after the grace forced to (SIGKILL).
A word on it, before that, means that the server is to outlive its parent: from then on the pipe doesn't matter.
Ends with the server's exit code. Needs the standard library alone, so that it is small and starts at once.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def main(grace_seconds: float, command: list[str]) -> int:
    """Start the server and stay until it has ended."""
    # Everything inheritable is passed on: the log as standard error, and the lock of the directory.
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        close_fds=False,
        preexec_fn=_die_with_keeper if sys.platform == "linux" else None,  # noqa: PLW1509 (no threads yet)
    )
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    threading.Thread(target=_stop_when_left_alone, args=(server, grace_seconds), daemon=True).start()
    print(server.pid, flush=True)  # noqa: T201 (the parent reads it)
    return server.wait()


def _stop_when_left_alone(server: subprocess.Popen[bytes], grace_seconds: float) -> None:
    if os.read(0, 1):  # nothing, when the pipe's other end is closed
        return
    server.send_signal(signal.SIGCONT)  # a paused server couldn't react
    server.terminate()
    try:
        server.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        server.kill()


def _die_with_keeper() -> None:
    """The kernel's promise, where there is one, for a keeper that is itself killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    code = main(float(sys.argv[1]), sys.argv[2:])
    sys.exit(code if code >= 0 else 128 - code)
