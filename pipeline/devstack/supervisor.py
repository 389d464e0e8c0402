"""Run a stack in this process, or in a background process that outlives its caller; stop a running stack."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from pipeline.devstack.lock import holder, locked, sign
from pipeline.devstack.process import end, spawn
from pipeline.devstack.server import Server, last_line
from pipeline.devstack.stack import Stack
from pipeline.errors import ChimeraError, ConfigError, HaltError, UnavailableError

_WHAT = "development stack"
_POLL_SECONDS = 0.2
_STOP_SECONDS = 60.0
_STABLE_SECONDS = 60.0  # a server that ends within this time of its restart would do so for ever
_BY_EXIT_CODE = {error.exit_code: error for error in (ConfigError, UnavailableError, HaltError)}


def keep_running(
    stack: Stack, ready: Callable[[], None], restarting: Callable[[Server], None], restarted: Callable[[Server], None]
) -> None:
    """Run both servers until SIGINT or SIGTERM, then stop them. Start a server again that ends by itself.

    A shell makes its background jobs ignore SIGINT. There, SIGTERM alone stops the servers.

    Args:
        stack: not started yet.
        ready: called when both servers answer.
        restarting: called before a server is started again.
        restarted: called when it answers again.

    Raises:
        ConfigError: the extra isn't installed, or the directory is unusable.
        UnavailableError: the directory is in use, a server doesn't start, or a server ends by itself twice
            within a minute; then both are stopped.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), locked(stack.lock_file, _WHAT):
        sign(stack.lock_file, os.getpid())
        with stack:
            ready()
            restarted_at = dict.fromkeys(stack.servers, float("-inf"))
            while True:
                time.sleep(_POLL_SECONDS)
                for ended in [server for server in stack.servers if not server.running]:
                    if time.monotonic() - restarted_at[ended] < _STABLE_SECONDS:
                        raise UnavailableError(f"{ended.name} ended by itself again; see {ended.log_file}")
                    restarting(ended)
                    ended.start()
                    restarted_at[ended] = time.monotonic()
                    restarted(ended)


def leave_running(directory: Path, ports: Mapping[str, int | None]) -> Stack:
    """Run `chimera stack up` in the background, in a session of its own; return when both servers answer.

    Args:
        directory: of the stack.
        ports: `kafka_port`, `clickhouse_port` and `http_port`; None leaves the choice to the stack.

    Raises:
        ConfigError, UnavailableError: as from `keep_running`.
    """
    options = [f"--{name.replace('_', '-')}={port}" for name, port in ports.items() if port]
    with locked(directory / "lock", _WHAT):  # a used directory is reported here, not in the log
        log = directory / "up.log"
        log.unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "pipeline.cli", "stack", "up", f"--directory={directory}", *options]
        child = spawn(command, None, log, stdout=subprocess.PIPE, start_new_session=True)
    try:
        # The child writes its first line when both servers answer. If nobody reads the line, the child stops them.
        if not (child.stdout and child.stdout.readline()):
            raise _BY_EXIT_CODE.get(child.wait(), ChimeraError)(last_line(log).removeprefix("chimera: "))
    except KeyboardInterrupt:
        end(child, _STOP_SECONDS)
        raise
    return Stack(directory)


def stop(stack: Stack) -> bool:
    """Stop all processes of a stack, also those of another caller, and wait for their end. Return False when none ran.

    A process is stopped only if it holds a lock in the stack's directory. A process id that a crash left in a lock
    file may belong to another program by now; that program is left alone.

    Raises:
        UnavailableError: a process didn't end within 60 s.
    """
    locks = [stack.lock_file, *(server.lock_file for server in stack.servers)]
    supervisor, *servers = (holder(lock) for lock in locks)
    # The supervisor stops its servers. Without a supervisor, the servers are asked themselves.
    for pid in filter(None, [supervisor] if supervisor else servers):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while left := next(filter(None, map(holder, locks)), None):
        if time.monotonic() > deadline:
            raise UnavailableError(f"{stack.directory}: process {left} didn't end within {_STOP_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)
    return any((supervisor, *servers))
