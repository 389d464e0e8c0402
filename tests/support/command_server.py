"""Commands of `chimera` without the wait for their imports: a server imports the package once, and forks for each.

`chimera` spends 0.6 s of CPU on imports, and the documents have a hundred commands. `CommandServer.directory` has a
`chimera` for the PATH of a shell. It hands arguments, environment, directory and streams to the server, whose child
runs what the installed command runs, and ends as the child ends.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from pipeline.cli import COMMANDS
from pipeline.devstack.process import spawn
from support.fork_server import Request, become
from support.processes import eventually

_CLIENT = Path(__file__).with_name("command_client.py")
_TESTS = Path(__file__).parents[1]
_REQUEST_BYTES = 1 << 20


class CommandServer:
    """The server, seen from the tests.

    Args:
        directory: directory for the command, the socket and the output of the server itself.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        """Directory with the `chimera` command."""
        address, command, log = directory / "socket", directory / "chimera", directory / "output.log"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {_CLIENT} {address} "$@"\n', encoding="utf-8")
        command.chmod(0o700)
        path = os.pathsep.join([str(_TESTS), str(_TESTS.parent)])
        server = [sys.executable, "-m", "support.command_server", str(address)]
        self._process = spawn(server, dict(os.environ) | {"PYTHONPATH": path}, log)
        try:
            eventually(lambda: address.exists() or self._process.poll() is not None, "the command server starts")
            assert address.exists(), log.read_text(encoding="utf-8")
        except AssertionError:
            self.close()
            raise

    def close(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.wait()


def _serve(listener: socket.socket) -> Request | None:
    """Fork for each command. Return its request in the process that becomes the command, None in all others."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _answer(client)
        client.close()


def _answer(client: socket.socket) -> Request | None:
    """Fork once more, and tell the client how the child has ended; end the child if the client goes first."""
    message, fds, *_ = socket.recv_fds(client, _REQUEST_BYTES, 3)
    if not message:
        return None
    arguments, environ, directory = json.loads(message)
    request = Request(["chimera", *arguments], environ, directory, fds)
    if (pid := os.fork()) == 0:
        client.close()
        return request
    request.close()
    child = os.pidfd_open(pid)
    if child not in select.select([child, client.fileno()], [], [])[0]:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):
        client.send(b"%d" % code)
    return None


def main() -> None:
    """Serve on the Unix socket whose address is the argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the tests, which end the server
    for command in COMMANDS.values():
        import_module(command.partition(":")[0])
    gc.collect()
    gc.freeze()  # or a collection in a child would copy all pages
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        request = _serve(listener)
    if request:
        become(request)


if __name__ == "__main__":
    main()
