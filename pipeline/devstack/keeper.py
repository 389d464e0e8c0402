"""Keeper of a server: parent process that stops the server when the process that wanted it is gone.

usage: python -I -S keeper.py GRACE_SECONDS COMMAND...

The keeper prints the server's process id, then waits. Its standard input is a pipe from the process that wants the
server. When that process closes the pipe or dies, even by SIGKILL, the keeper asks the server to stop (SIGTERM) and
kills it (SIGKILL) after the grace. A byte on the pipe before that lets the server outlive the process: from then on the
keeper ignores the pipe. The keeper ends with the server's exit code. It imports only the standard library, so that it
is small and starts at once.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def main(grace_seconds: float, command: list[str]) -> int:
    """Start the server, wait for its end, and return its exit code."""
    # The server inherits the log, as standard error, and the lock of its directory.
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        close_fds=False,
        preexec_fn=_die_with_keeper if sys.platform == "linux" else None,  # noqa: PLW1509 (no threads yet)
    )
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    threading.Thread(target=_stop_when_left_alone, args=(server, grace_seconds), daemon=True).start()
    print(server.pid, flush=True)  # noqa: T201 (the process that started the keeper reads it)
    return server.wait()


def _stop_when_left_alone(server: subprocess.Popen[bytes], grace_seconds: float) -> None:
    if os.read(0, 1):  # no byte when the other end of the pipe is closed
        return
    server.send_signal(signal.SIGCONT)  # a paused server can't react to SIGTERM
    server.terminate()
    try:
        server.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        server.kill()


def _die_with_keeper() -> None:
    """Have Linux kill the server when the keeper itself is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    code = main(float(sys.argv[1]), sys.argv[2:])
    sys.exit(code if code >= 0 else 128 - code)
