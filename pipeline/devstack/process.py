"""Child processes: started with an environment of their own and their output in a file, stopped within a bound."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def spawn(
    command: Sequence[str | Path], environment: Mapping[str, str] | None, log_file: Path, **options: Any
) -> "subprocess.Popen[bytes]":
    """Start a process.

    Args:
        command: program and arguments.
        environment: all environment variables of the process; those of this process when None.
        log_file: file that standard error, and standard output unless `options` say otherwise, are appended to.
        options: further options of `subprocess.Popen`. Standard input is empty unless they say otherwise.

    Raises:
        OSError: the log file can't be written, or the program can't be run.
    """
    with log_file.open("ab") as log:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        environ = None if environment is None else dict(environment)
        return subprocess.Popen(list(command), env=environ, **streams | options)


def end(process: "subprocess.Popen[Any]", seconds: float) -> int:
    """Ask a process to end (SIGTERM), force it after `seconds` (SIGKILL), and return its exit code."""
    process.terminate()
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
