"""Ports of a server: chosen, or those it had last time, or its usual ones, or any that are free."""

import json
import random
import socket
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigError

HOST = "127.0.0.1"

# Below the ranges that Linux (32768) and macOS (49152) draw the local ports of outgoing connections from. In there, a
# stopped server's port could be taken by any client, even by one that keeps trying to connect to that very port.
_FREE_RANGE = range(15_000, 32_000)
_ATTEMPTS = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        # As the servers do it: connections of a predecessor in TIME_WAIT don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port nobody listens on, which no outgoing connection will take either."""
    for port in random.sample(_FREE_RANGE, _ATTEMPTS):
        if is_free(port):
            return port
    raise OSError(f"none of {_ATTEMPTS} ports tried between {_FREE_RANGE.start} and {_FREE_RANGE.stop} is free")


class Ports:
    """The ports a server has settled on, remembered in a file so that a restart comes back on the same ones.

    Args:
        file: where they are remembered, once `remember` was called.
        chosen: name to port; None leaves the choice to us.
        usual: name to the port to take when it is free and none is chosen or remembered.

    Raises:
        ConfigError: the file is there, but isn't ours.
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
        """Name to port."""
        return self._ports

    def taken(self) -> dict[str, int]:
        """Those which something else listens on."""
        return {name: port for name, port in self._ports.items() if not is_free(port)}

    def remember(self) -> None:
        """Write them down."""
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
