"""Commands of `chimera` without the wait for their imports: a server imports the package once, and forks for each.

`chimera` spends 0.6 s of CPU on imports, and the documents have a hundred commands. `CommandServer.directory` has a
`chimera` for the PATH of a shell. It hands arguments, environment, directory and streams to the server, whose child
runs what the installed command runs, and ends as the child ends.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from pipeline.cli import COMMANDS
from support.fork_server import Request, run_server, start_server

_CLIENT = Path(__file__).with_name("command_client.py")
_REQUEST_BYTES = 1 << 20


class CommandServer:
    """The server, seen from the tests. It ends with the process that started it.

    A command has its own environment, but what Python reads at its start, such as the encoding of streams, is the
    server's. A signal to the command ends it at once (SIGKILL), as it does its client.

    Args:
        directory: directory for the command, the socket and the output of the server itself.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        """Directory with the `chimera` command."""
        address, command = directory / "socket", directory / "chimera"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {_CLIENT} {address} "$@"\n', encoding="utf-8")
        command.chmod(0o700)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(address))
            listener.listen()  # so a command waits until the server has its imports
            self._process = start_server(
                "support.command_server", listener, os.environ, directory / "output.log", stdin=subprocess.PIPE
            )

    def close(self) -> None:
        """End the server, and its commands."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _serve(listener: socket.socket) -> Request | None:
    """Fork for each command until the tests end. Return the request in the process that becomes it, else None."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
    while sys.stdin.fileno() not in select.select([listener.fileno(), sys.stdin.fileno()], [], [])[0]:
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _answer(client)
        client.close()
    return None


def _answer(client: socket.socket) -> Request | None:
    """Fork once more, and tell the client how the child ended; end the child if client or tests end first."""
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
    if child not in select.select([child, client.fileno(), sys.stdin.fileno()], [], [])[0]:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):
        client.send(b"%d" % code)
    return None


def main() -> None:
    """Serve the commands of the clients."""
    run_server((command.partition(":")[0] for command in COMMANDS.values()), _serve)


if __name__ == "__main__":
    main()
