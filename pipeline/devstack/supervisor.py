"""Keeps a stack running until told otherwise: here, or in a process of its own that outlives its caller."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from pipeline.devstack.lock import holder, locked, sign
from pipeline.devstack.server import last_line
from pipeline.devstack.stack import Stack
from pipeline.errors import ChimeraError, ConfigError, HaltError, UnavailableError

_WHAT = "development stack"
_POLL_SECONDS = 0.2
_STOP_SECONDS = 60.0
_BY_EXIT_CODE = {error.exit_code: error for error in (ConfigError, UnavailableError, HaltError)}


def keep_running(stack: Stack, ready: Callable[[], None]) -> None:
    """Run both servers until SIGINT or SIGTERM, then stop them.

    Args:
        stack: not started yet.
        ready: called when both servers answer.

    Raises:
        ConfigError: the extra isn't installed, or the directory is unusable.
        UnavailableError: the directory is in use, a server doesn't come up, or ends by itself.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), locked(stack.lock_file, _WHAT):
        sign(stack.lock_file, os.getpid())
        with stack:
            ready()
            while stack.running:
                time.sleep(_POLL_SECONDS)
            ended = next(server for server in stack.servers if not server.running)
            raise UnavailableError(f"{ended.name} ended by itself; see {ended.log_file}")


def leave_running(directory: Path, ports: Mapping[str, int | None]) -> Stack:
    """Run `chimera stack up` in the background, in a session of its own; returns when both servers answer.

    Args:
        directory: of the stack.
        ports: `kafka_port`, `clickhouse_port`, `http_port`, where they are chosen.

    Raises:
        ConfigError, UnavailableError: as from `keep_running`.
    """
    options = [f"--{name.replace('_', '-')}={port}" for name, port in ports.items() if port]
    with locked(directory / "lock", _WHAT):  # better said here than in the log
        log = directory / "up.log"
        with log.open("w") as output:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipeline.cli", "stack", "up", f"--directory={directory}", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
    try:
        # Its first word is that both answer. Without a reader for it, it stops the servers and ends.
        if not (child.stdout and child.stdout.readline()):
            raise _BY_EXIT_CODE.get(child.wait(), ChimeraError)(last_line(log).removeprefix("chimera: "))
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    return Stack(directory)


def stop(stack: Stack) -> bool:
    """Stop what runs in the stack's directory, whoever started it; returns when it has ended. False when nothing ran.

    Only a process that holds a lock there is stopped, as only a living one can: what a crash left behind, with the id
    of a process that has become somebody else's, does no harm.

    Raises:
        UnavailableError: a process didn't end.
    """
    locks = [stack.lock_file, *(server.lock_file for server in stack.servers)]
    keeper, *servers = (holder(lock) for lock in locks)
    # The keeper stops its servers. They are asked themselves where there is none, or none any more.
    for pid in filter(None, [keeper] if keeper else servers):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while left := next(filter(None, map(holder, locks)), None):
        if time.monotonic() > deadline:
            raise UnavailableError(f"{stack.directory}: process {left} didn't end within {_STOP_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)
    return any((keeper, *servers))
