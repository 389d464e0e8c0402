"""Ports of a server: chosen by the caller, remembered from the last start, usual, or free."""

import json
import random
import socket
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigError

HOST = "127.0.0.1"

# Below the local ports of outgoing connections, which start at 32768 on Linux and 49152 on macOS. Above, any client
# could take the port of a stopped server, even a client that keeps trying to connect to that port.
_FREE_RANGE = range(15_000, 32_000)
_ATTEMPTS = 200

# Sockets bound to the ports drawn last, so that no other process draws these ports: not before the server listens, and
# not while it is stopped.
_drawn: deque[socket.socket] = deque(maxlen=64)


def is_free(port: int) -> bool:
    """True if a server can listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        # The servers set this option too: connections of a predecessor in TIME_WAIT don't block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Return a port without a listener, which no outgoing connection takes.

    On Linux, no other call in any process returns the same port while this process lives and has drawn fewer than 64
    more.
    """
    for port in random.sample(_FREE_RANGE, _ATTEMPTS):
        drawn = socket.socket()
        try:
            drawn.bind((HOST, port))
        except OSError:
            drawn.close()
            continue
        if sys.platform == "linux":  # elsewhere, the server couldn't listen beside this socket
            drawn.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: now both may bind
            _drawn.append(drawn)
        else:
            drawn.close()
        return port
    raise OSError(f"none of {_ATTEMPTS} ports tried between {_FREE_RANGE.start} and {_FREE_RANGE.stop} is free")


class Ports:
    """Ports of a server, remembered in a file so that a restart uses the same ports.

    Args:
        file: file that `remember` writes.
        chosen: ports by name; None leaves the choice to this class.
        usual: preferred ports by name, used if they are free and no port is chosen or remembered.

    Raises:
        ConfigError: the file exists, but doesn't hold ports.
    """

    def __init__(self, file: Path, chosen: Mapping[str, int | None], usual: Mapping[str, int]) -> None:
        self._file = file
        remembered = _read(file)
        self._ports = {
            name: port or remembered.get(name) or _usual_or_free(usual.get(name)) for name, port in chosen.items()
        }

    def __getitem__(self, name: str) -> int:
        return self._ports[name]

    @property
    def by_name(self) -> Mapping[str, int]:
        """All ports by name."""
        return self._ports

    def taken(self) -> dict[str, int]:
        """Ports by name that another process listens on."""
        return {name: port for name, port in self._ports.items() if not is_free(port)}

    def remember(self) -> None:
        """Write the ports to the file."""
        self._file.write_text(json.dumps(self._ports), encoding="utf-8")


def _usual_or_free(usual: int | None) -> int:
    return usual if usual and is_free(usual) else free_port()


def _read(file: Path) -> dict[str, int]:
    try:
        ports = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{file}: {reason}; expected names and ports; delete it to choose anew") from None
    if not isinstance(ports, dict) or not all(isinstance(port, int) for port in ports.values()):
        raise ConfigError(f"{file}: expected names and ports, got {ports!r}; delete it to choose anew")
    return ports
