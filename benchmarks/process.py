"""A contender's process: started with its output in a log, watched, stopped, never left behind."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from pipeline.errors import ChimeraError

_STOP_SECONDS = 30.0


class ContenderError(ChimeraError):
    """A contender ended, stopped storing, or stored other rows than were published."""


class ContenderProcess:
    """A process and its children, while the context is open.

    Args:
        command: what to run.
        environment: all of it.
        log: file that takes its output; its directory is the process's working directory.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        self._command = command
        self._environment = environment

    def __enter__(self) -> Self:
        with self.log.open("wb") as output:
            self._process = psutil.Popen(
                list(self._command),
                env=dict(self._environment),
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tree = self._tree()
        if tree:
            self._process.terminate()
        _, left = psutil.wait_procs(tree, _STOP_SECONDS)
        for process in left:
            process.kill()
        psutil.wait_procs(left)

    def check(self) -> None:
        """Raise a ContenderError if the process has ended."""
        if (code := self._process.poll()) is not None:
            raise self.failure(f"ended with exit code {code}")

    def failure(self, problem: str) -> ContenderError:
        """An error that says what happened, where its log is and how that ends."""
        last = next((line.strip() for line in reversed(self.output().split("\n")) if line.strip()), "nothing")
        return ContenderError(f"{self.log.stem} {problem}; {self.log} ends: {last}")

    def output(self) -> str:
        """What it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def cpu_seconds(self) -> float:
        """CPU time of the process and its children, those that have ended too."""
        return sum(cpu_seconds(process) for process in self._tree())

    def peak_rss_bytes(self) -> int:
        """Most resident memory each of the processes ever held, added up."""
        return sum(peak_rss_bytes(process.pid) for process in self._tree())

    def _tree(self) -> list[psutil.Process]:
        if self._process.poll() is not None:
            return []
        return [self._process, *self._process.children(recursive=True)]


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process and its children that have ended."""
    times = process.cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def peak_rss_bytes(pid: int) -> int:
    """Most resident memory a process ever held, as the kernel keeps it (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
