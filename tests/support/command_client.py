"""A command that the command server runs: `python -I -S command_client.py <socket> <argument>...`."""

import json
import os
import signal
import socket
import sys


def main() -> None:
    """Hand over arguments, environment, directory and streams, and end as the command does."""
    _, address, *arguments = sys.argv
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(address)
        request = json.dumps([arguments, dict(os.environ), os.getcwd()])  # noqa: PTH109 (pathlib is slow to import)
        socket.send_fds(server, [request.encode()], [0, 1, 2])
        code = int(server.recv(16) or 70)
    if code < 0:
        if -code not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
