"""A server of the development stack as a process: started, asked whether it answers, stopped, never left behind."""

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
from pipeline.devstack.process import spawn
from pipeline.errors import UnavailableError

_KEEPER = Path(__file__).with_name("keeper.py")
_START_SECONDS = 180.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.05
_LOG_END_BYTES = 32_768
_ERROR = re.compile(r"Exception|<Error>|<Fatal>|\b(ERROR|FATAL)\b")  # a stack trace may follow


class Server(ABC):
    """A server with a directory of its own, which holds configuration, data and logs; they survive a restart.

    The server ends with the process that started it, even if SIGKILL ended that process, until `let_go` is called.
    While the server runs, no other process can start a server in the same directory.

    Args:
        directory: made when missing.
        ports: ports to listen on. They are chosen at once, so that clients can be configured before the server is up.
    """

    name: ClassVar[str]
    usual_ports: ClassVar[Mapping[str, int]]

    def __init__(self, directory: Path, ports: Mapping[str, int | None], *, usual_ports: bool) -> None:
        self.directory = directory.resolve()
        self._ports = Ports(self.directory / "ports.json", ports, self.usual_ports if usual_ports else {})
        self._environment: Mapping[str, str] | None = None  # this process's own, when None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._process: Any = None

    @property
    def port(self) -> int:
        """Port for clients."""
        return self._ports["port"]

    @property
    def ports(self) -> Mapping[str, int]:
        """All ports for clients, by name."""
        return self._ports.by_name

    @property
    def pid(self) -> int | None:
        """Process id of the server itself; None when it doesn't run."""
        return self._process.pid if self.running else None

    @property
    def running(self) -> bool:
        """True while the process exists, paused or not."""
        return self._keeper is not None and self._keeper.poll() is None

    @property
    def lock_file(self) -> Path:
        """Lock that the server's processes hold as long as they live."""
        return self.directory / "lock"

    @property
    def output_file(self) -> Path:
        """Standard output and standard error of the process since its last start."""
        return self.directory / "output.log"

    @property
    @abstractmethod
    def log_file(self) -> Path:
        """The server's own log; kept over restarts, and rotated."""

    def check(self) -> None:
        """Check that the server could start: its directory and its ports are free. Do nothing when it runs already.

        Raises:
            ConfigError: the extra isn't installed, or the directory is unusable.
            UnavailableError: a port is taken, or the directory is in use; says which.
        """
        if not self.running:
            require("psutil")
            with locked(self.lock_file, self.name):
                self._check_ports()

    def start(self) -> None:
        """Start the server and wait until it answers. Do nothing when it runs already.

        Raises:
            ConfigError: the extra isn't installed, or the directory is unusable.
            UnavailableError: a port is taken, the directory is in use, the server ended or doesn't answer; says which.
        """
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start the process without waiting for an answer: the first half of `start`."""
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
        """Wait until the server answers, the second half of `start`; kill it if it doesn't answer in time."""
        try:
            self._wait_for_answer()
        except BaseException:
            self.kill()
            raise

    def stop(self, seconds: float = _STOP_SECONDS) -> None:
        """Ask the server to stop, kill it after `seconds`, and wait for its end. Do nothing when it doesn't run."""
        if not self.running or self._keeper is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._keeper.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the server at once (SIGKILL) and wait for its end."""
        if self.running and self._keeper is not None:
            self._process.kill()
            self._keeper.wait()

    def pause(self) -> None:
        """Freeze the server (SIGSTOP); its connections stay open."""
        if self.running:
            self._process.suspend()
        while self.running and self._process.status() != "stopped":  # on a busy machine it takes a moment
            time.sleep(_POLL_SECONDS)

    def resume(self) -> None:
        """Continue a paused server (SIGCONT)."""
        if self.running:
            self._process.resume()

    def let_go(self) -> None:
        """Let the server outlive this process: from now on it runs until it is stopped."""
        if self.running and self._keeper is not None and self._keeper.stdin:
            self._keeper.stdin.write(b"\n")
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
        """True if a client that connects now is served."""

    def _wait_for_answer(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        retry_left = (
            True  # about one start in sixty, the ClickHouse engine dies while it starts; the next start succeeds
        )
        while not self._answers():
            if not self.running:
                if not retry_left:
                    raise UnavailableError(f"{self.name} ended while starting; {self._hint()}")
                retry_left = False
                self.launch()
            if time.monotonic() > deadline:
                raise UnavailableError(f"{self.name} didn't answer within {_START_SECONDS:.0f} s; {self._hint()}")
            time.sleep(_POLL_SECONDS)

    def _check_ports(self) -> None:
        for name, port in self._ports.taken().items():
            raise UnavailableError(
                f"{self.name}: {name.replace('_', ' ')} {port} is taken; stop what listens there, or choose another"
            )

    def _spawn(self, command: list[str], lock: int) -> subprocess.Popen[bytes]:
        self.output_file.unlink(missing_ok=True)
        return spawn(
            [sys.executable, "-I", "-S", _KEEPER, str(_STOP_SECONDS), *command],
            self._environment,
            self.output_file,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(lock,),  # the server inherits the lock, and holds it until it ends
            start_new_session=True,  # a Ctrl-C in the terminal reaches this process alone, which stops the server
        )

    def _hint(self) -> str:
        """Name of the log to read, and its last line."""
        logs = [file for file in (self.output_file, self.log_file) if file.exists() and file.stat().st_size]
        if not logs:
            return f"{self.output_file} is empty"
        return f"see {logs[-1]}, which ends: {last_line(logs[-1])}"


def last_line(file: Path) -> str:
    """Return the last line of a log that names an error, else the last line that isn't blank, else an empty string."""
    with file.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_END_BYTES))
        lines = [line.strip() for line in log.read().decode(errors="replace").split("\n") if line.strip()]
    return next((line for line in reversed(lines) if _ERROR.search(line)), lines[-1] if lines else "")
