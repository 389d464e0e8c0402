"""Process of a contender: its output goes to a log, and it never outlives the context."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from pipeline.devstack.process import end, spawn
from pipeline.errors import ChimeraError

_STOP_SECONDS = 30.0


class ContenderError(ChimeraError):
    """A contender ended, stalled, or stored other rows than the published ones."""


class ContenderProcess:
    """Process with its children; it runs while the context is open.

    Args:
        command: program and arguments.
        environment: all variables of the process.
        log: file for the output; its directory is the working directory of the process.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        self._command = command
        self._environment = environment

    def __enter__(self) -> Self:
        self.log.unlink(missing_ok=True)
        # A Ctrl-C in the terminal reaches the benchmark alone, which stops the contender.
        self._process = spawn(self._command, self._environment, self.log, cwd=self.log.parent, start_new_session=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        children = self._tree()[1:]
        hurry = kind is not None  # nobody waits for a last insert
        end(self._process, 0 if hurry else _STOP_SECONDS)
        _, left = psutil.wait_procs(children, 0 if hurry else _STOP_SECONDS)
        for process in left:
            process.kill()
        psutil.wait_procs(left)

    @property
    def ended(self) -> int | None:
        """Exit code of the process; None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise a ContenderError if the process has ended."""
        if (code := self.ended) is not None:
            raise self.failure(f"ended with exit code {code}")

    def failure(self, problem: str) -> ContenderError:
        """Return an error with the problem, the path of the log and its last line."""
        last = next((line.strip() for line in reversed(self.output().split("\n")) if line.strip()), "nothing")
        return ContenderError(f"{self.log.stem} {problem}; {self.log} ends: {last}")

    def output(self) -> str:
        """Output of the process so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def cpu_seconds(self) -> float:
        """CPU time of the process and its children, including ended ones, in seconds."""
        return sum(cpu_seconds(process) for process in self._tree())

    def peak_rss_bytes(self) -> int:
        """Sum of the peak resident memory of all processes, in bytes."""
        return sum(peak_rss_bytes(process.pid) for process in self._tree())

    def rss_bytes(self) -> int:
        """Sum of the resident memory of all processes now, in bytes."""
        return sum(process.memory_info().rss for process in self._tree())

    def _tree(self) -> list[psutil.Process]:
        if self._process.poll() is not None:
            return []
        return family(self._process.pid)


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants; none if it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process and its ended children, in seconds; 0 if it has ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def peak_rss_bytes(pid: int) -> int:
    """Peak resident memory of a process in bytes, as the kernel keeps it (VmHWM); 0 if there is none."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
