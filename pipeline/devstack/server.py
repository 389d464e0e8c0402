"""A server of the development stack as a process: started, asked for, stopped, never left behind."""

import os
import re
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pipeline.devstack.extra import require
from pipeline.devstack.lock import locked, sign
from pipeline.devstack.ports import Ports
from pipeline.errors import UnavailableError

_KEEPER = Path(__file__).with_name("keeper.py")
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.05
_LOG_END_BYTES = 32_768
_ERROR = re.compile(r"Exception|<Error>|<Fatal>|\b(ERROR|FATAL)\b")  # a stack trace may follow


class Server(ABC):
    """A server with a directory of its own: configuration, data and logs are in it and survive a restart.

    The server dies with the process that started it, even with one killed by SIGKILL, until it is let go. While it
    runs, nobody else can start one in the same directory.

    Args:
        directory: made when missing.
        ports: what it listens on; settled from the start, so that clients can be configured before the server is up.
    """

    name: ClassVar[str]
    usual_ports: ClassVar[Mapping[str, int]]

    def __init__(self, directory: Path, ports: Mapping[str, int | None], *, usual_ports: bool) -> None:
        self.directory = directory.resolve()
        self._ports = Ports(self.directory / "ports.json", ports, self.usual_ports if usual_ports else {})
        self._environment: Mapping[str, str] | None = None  # ours, when None
        self._keeper: subprocess.Popen[str] | None = None
        self._process: Any = None

    @property
    def port(self) -> int:
        """The port its clients connect to."""
        return self._ports["port"]

    @property
    def ports(self) -> Mapping[str, int]:
        """Everything it listens on for clients: name to port."""
        return self._ports.by_name

    @property
    def pid(self) -> int | None:
        """Process id of the server itself, when it runs."""
        return self._process.pid if self.running else None

    @property
    def running(self) -> bool:
        """Whether the process is there, paused or not."""
        return self._keeper is not None and self._keeper.poll() is None

    @property
    def lock_file(self) -> Path:
        """The lock that the server's processes hold for as long as they live."""
        return self.directory / "lock"

    @property
    def output_file(self) -> Path:
        """What the process wrote to its standard output and error since it was last started."""
        return self.directory / "output.log"

    @property
    @abstractmethod
    def log_file(self) -> Path:
        """What the server itself logs; kept over restarts, and rotated."""

    def start(self) -> None:
        """Start and wait until the server answers. Does nothing when it runs already.

        Raises:
            ConfigError: the extra isn't installed, or the directory is unusable.
            UnavailableError: a port is taken, the directory is in use, the server ended or is silent; says which.
        """
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start the process without waiting for its answer: the first half of `start`."""
        if self.running:
            return
        psutil = require("psutil")
        with locked(self.lock_file, self.name) as lock:
            self._check_ports()
            command = self._prepare()
            self._ports.remember()
            self._keeper = self._spawn(command, lock)
        pid = int(self._keeper.stdout.readline()) if self._keeper.stdout else 0
        self._process = psutil.Process(pid)
        sign(self.lock_file, pid)

    def wait_until_ready(self) -> None:
        """Wait until the server answers: the second half of `start`. A server that doesn't is stopped."""
        try:
            self._wait_for_answer()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask the server to stop, force it when it doesn't, and wait for its end. Does nothing when it doesn't run."""
        if not self.running or self._keeper is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._keeper.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the server at once (SIGKILL) and wait until it is gone."""
        if self.running and self._keeper is not None:
            self._process.kill()
            self._keeper.wait()

    def pause(self) -> None:
        """Stop it from doing anything, with all its connections left open (SIGSTOP)."""
        if self.running:
            self._process.suspend()
        while self.running and self._process.status() != "stopped":  # on a busy machine it takes a moment
            time.sleep(_POLL_SECONDS)

    def resume(self) -> None:
        """Let it go on after `pause` (SIGCONT)."""
        if self.running:
            self._process.resume()

    def let_go(self) -> None:
        """Have it outlive us: from now on it ends when it is stopped, by us or by somebody else, and not before."""
        if self.running and self._keeper is not None and self._keeper.stdin:
            self._keeper.stdin.write("\n")
            self._keeper.stdin.flush()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self) -> list[str]:
        """Write the configuration, and return the command that runs the server."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether a client that connects now would be served."""

    def _wait_for_answer(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        another_try = True  # seen once in some sixty starts: an engine that died while starting, and started then
        while not self._answers():
            if not self.running:
                if not another_try:
                    raise UnavailableError(f"{self.name} ended while starting; {self._hint()}")
                another_try = False
                self.launch()
            if time.monotonic() > deadline:
                raise UnavailableError(f"{self.name} didn't answer within {_START_SECONDS:.0f} s; {self._hint()}")
            time.sleep(_POLL_SECONDS)

    def _check_ports(self) -> None:
        for name, port in self._ports.taken().items():
            raise UnavailableError(
                f"{self.name}: {name.replace('_', ' ')} {port} is taken; stop what listens there, or choose another"
            )

    def _spawn(self, command: list[str], lock: int) -> subprocess.Popen[str]:
        with self.output_file.open("w") as output:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", _KEEPER, str(_STOP_SECONDS), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=self._environment,
                pass_fds=(lock,),  # the server inherits it too, and holds it until it ends
                start_new_session=True,  # a Ctrl-C in the terminal is for us alone; we stop the server
                text=True,
            )

    def _hint(self) -> str:
        """Where to read on, and the last thing that was written there."""
        logs = [file for file in (self.output_file, self.log_file) if file.exists() and file.stat().st_size]
        if not logs:
            return f"it left no word in {self.output_file}"
        return f"see {logs[-1]}, which ends: {last_line(logs[-1])}"


def last_line(file: Path) -> str:
    """The last line of a log that tells of an error, else the last that isn't blank; empty when there is none."""
    with file.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_END_BYTES))
        lines = [line.strip() for line in log.read().decode(errors="replace").split("\n") if line.strip()]
    return next((line for line in reversed(lines) if _ERROR.search(line)), lines[-1] if lines else "")
