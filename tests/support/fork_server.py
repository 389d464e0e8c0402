"""Workers without the wait for their imports: a server imports the libraries and forks, and the child is a worker.

`faust -A pipeline worker` spends 1.3 s of CPU on imports, and the tests start hundreds of workers. The child has its
own environment, arguments, streams, signals and working directory, and runs the same module as `python -m` does. A
worker that needs a fresh interpreter gets one: with other variables than CHIMERA_…, or as part of another command.
"""

import gc
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Protocol

from pipeline.config import ENV_PREFIX
from pipeline.devstack.process import spawn
from pipeline.privacy.hashing import Hasher
from pipeline.privacy.user_agents import UserAgentReducer

_PROGRAMS = {  # what `python -m` runs, or `chimera`
    "faust": "faust.__main__",
    "chaos.victim": "chaos.victim",
    "chimera": "pipeline.cli.__main__",
}
_IMPORTED = (
    "faust.cli.faust",
    "faust.cli.worker",
    "pipeline.worker.app",
    "chaos.defects",
    "chaos.points",
    "chaos.trap",
)
_TESTS = Path(__file__).parents[1]
# Variables that the child takes over though the server didn't start with them: nothing reads them while it is imported.
_OWN = (ENV_PREFIX, "COVERAGE_PROCESS_", "PYTEST_", "TMPDIR", "PYTHONPATH")
_REQUEST_BYTES = 1 << 20


class Process(Protocol):
    """The part of `subprocess.Popen` that tests use."""

    stdin: IO[bytes] | None
    returncode: int | None

    @property
    def pid(self) -> int:
        """Process id."""

    def poll(self) -> int | None:
        """Return the exit code; None while the process runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code."""

    def send_signal(self, sig: int, /) -> None:
        """Send a signal unless the process has ended."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


class Forked:
    """A child of the server.

    Args:
        stdin: its standard input.
        status: pipe from which the server's words are read: the process id, and later the exit code.
    """

    def __init__(self, stdin: IO[bytes], status: IO[bytes]) -> None:
        self.stdin: IO[bytes] | None = stdin
        self.returncode: int | None = None
        self._status = status
        self._pid = self._read()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._pid

    def poll(self) -> int | None:
        """Return the exit code; None while the process runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code.

        Raises:
            subprocess.TimeoutExpired: the process still runs after `timeout` seconds.
        """
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("worker", timeout or 0)
        return code

    def send_signal(self, number: int, /) -> None:
        """Send a signal unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, and the server hasn't said so yet
                os.kill(self._pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _look(self, seconds: float | None) -> int | None:
        if self.returncode is None:
            arrival = select.poll()
            arrival.register(self._status, select.POLLIN)
            if arrival.poll(None if seconds is None else seconds * 1000):
                self.returncode = self._read()
                self._status.close()
        return self.returncode

    def _read(self) -> int:
        line = self._status.readline()
        assert line, "the fork server has ended"
        return int(line)


class ForkServer:
    """The server, seen from the tests; it starts with the first worker, and ends with the process that started it.

    Args:
        log_file: file for the output of the server itself.
    """

    def __init__(self, log_file: Path) -> None:
        self.enabled = True
        """False while the workers of a test need interpreters of their own."""
        self._environ = dict(os.environ)
        self._log_file = log_file
        self._requests: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], environ: Mapping[str, str], log_file: Path) -> Forked | None:
        """Start a program with its output in a file, and return it; None if it needs an interpreter of its own.

        Args:
            command: program and arguments.
            environ: all its environment variables.
            log_file: file that its standard output and standard error are appended to.
        """
        if not self.enabled or not _is_program(command) or _others(environ) != _others(self._environ):
            return None
        requests = self._running()
        (stdin, to_stdin), (from_status, status) = os.pipe(), os.pipe()
        with log_file.open("ab") as log:
            words = [list(command[2:]), dict(environ), str(Path.cwd())]
            socket.send_fds(requests, [json.dumps(words).encode()], [stdin, log.fileno(), status])
        os.close(stdin)
        os.close(status)
        return Forked(os.fdopen(to_stdin, "wb"), os.fdopen(from_status, "rb", buffering=0))

    def close(self) -> None:
        """End the server; its children go on."""
        if self._requests and self._process:
            self._requests.close()
            self._process.wait()

    def _running(self) -> socket.socket:
        if self._requests is None:
            self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._process = start_server("support.fork_server", theirs, self._environ, self._log_file)
            theirs.close()
        return self._requests


def start_server(
    module: str, requests: socket.socket, environ: Mapping[str, str], log_file: Path, **options: Any
) -> "subprocess.Popen[bytes]":
    """Start a process that runs a module, which calls `run_server`.

    Args:
        module: a module of the tests.
        requests: socket that requests come from.
        environ: variables of the process, of which it gets those that may matter while it imports.
        log_file: file for its output.
        options: further options of `subprocess.Popen`.
    """
    path = os.pathsep.join([str(_TESTS), str(_TESTS.parent)])
    command = [sys.executable, "-m", module, str(requests.fileno())]
    fds = (requests.fileno(),)
    return spawn(command, _others(environ) | {"PYTHONPATH": path}, log_file, pass_fds=fds, **options)


def run_server(modules: Iterable[str], serve: "Callable[[socket.socket], Request | None]") -> None:
    """Import modules, and serve on the socket whose number is the argument; a child becomes what was requested."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the tests, which end the server
    for module in modules:
        import_module(module)
    gc.collect()
    gc.freeze()  # or a collection in a child would copy all pages
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        request = serve(requests)
    if request:
        _become(request)


def _is_program(command: Sequence[str]) -> bool:
    return tuple(command[:2]) == (sys.executable, "-m") and command[2] in _PROGRAMS


def _others(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that a program may read while it is imported."""
    return {name: value for name, value in environ.items() if not name.startswith(_OWN)}


@dataclass(frozen=True, slots=True)
class Request:
    """A child to be: its arguments, and its streams."""

    arguments: Sequence[str]
    """Name of the program, and its own."""
    environ: Mapping[str, str]
    directory: str
    fds: Sequence[int]
    """Standard input, output and error, and the pipe for its status if it has one."""

    def close(self) -> None:
        """Close the streams here."""
        for number in set(self.fds):
            os.close(number)


@dataclass(slots=True)
class _Children:
    """The running children by their process descriptors, each with its id and the pipe for its status."""

    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    statuses: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, pid: int, status: int) -> None:
        os.write(status, b"%d\n" % pid)
        descriptor = os.pidfd_open(pid)
        self.statuses[descriptor] = pid, status
        self.selector.register(descriptor, selectors.EVENT_READ)

    def ended(self, descriptor: int) -> None:
        pid, status = self.statuses.pop(descriptor)
        self.selector.unregister(descriptor)
        os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(BrokenPipeError):  # nobody asks for it
            os.write(status, b"%d\n" % code)
        os.close(status)

    def close(self) -> None:
        self.selector.close()
        for descriptor, (_, status) in self.statuses.items():
            os.close(descriptor)
            os.close(status)


def _serve(requests: socket.socket) -> Request | None:
    """Fork for each request until the tests end. Return the request in the child, None in the server."""
    children = _Children()
    children.selector.register(requests, selectors.EVENT_READ)
    while True:
        for key, _ in children.selector.select():
            if key.fd != requests.fileno():
                children.ended(key.fd)
                continue
            message, fds, *_ = socket.recv_fds(requests, _REQUEST_BYTES, 3)
            if not message:
                return None
            stdin, log, status = fds
            arguments, environ, directory = json.loads(message)
            request = Request(arguments, environ, directory, [stdin, log, log, status])
            if (pid := os.fork()) == 0:
                children.close()
                requests.close()
                return request
            children.add(pid, os.dup(status))
            request.close()


def _become(request: Request) -> None:
    """Run the program as `python -m` does, in this process."""
    for number in (signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ours, theirs in enumerate(request.fds[:3]):
        os.dup2(theirs, ours)
    request.close()
    # The server's own streams remember what they were opened on: one for a file takes a pipe for seekable.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(request.directory)
    os.environ.clear()
    os.environ.update(request.environ)
    if any(name.startswith("COVERAGE_PROCESS_") for name in os.environ):
        from coverage import process_startup

        process_startup()
    module, *arguments = request.arguments
    sys.argv = [module, *arguments]
    runpy.run_module(_PROGRAMS[module], run_name="__main__", alter_sys=True)


def main() -> None:
    """Serve the tests' requests for workers."""
    UserAgentReducer(Hasher(b""))  # so ua-parser's definitions are compiled once
    run_server(_IMPORTED, _serve)


if __name__ == "__main__":
    main()
