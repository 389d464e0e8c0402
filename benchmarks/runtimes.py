"""Runtimes of the contenders: the project's Python, the peers' own Python, and the yardstick built by Go.

The last two are made on first use, in the user's cache.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

from benchmarks.contenders import Contender, Runtime
from pipeline.errors import UnavailableError

PEER_REQUIREMENTS = Path(__file__).with_name("requirements-peers.txt")
YARDSTICK_SOURCE = Path(__file__).with_name("yardstick")
_PEER_LOCK = Path(__file__).parents[1] / "requirements" / "peers.txt"  # the same with all dependencies; by `make lock`
_GO_PLACES = ("/usr/local/go/bin", "/usr/lib/go/bin")  # where installers of Go put it, often outside PATH


class MissingGoError(UnavailableError):
    """The yardstick can't be built here; the message says why."""


def command(contender: Contender) -> list[str]:
    """Program and arguments of a contender; the first call makes the program.

    Raises:
        UnavailableError: the peers' packages can't be installed; the message says why.
        MissingGoError: there is no Go, or it can't build the yardstick.
    """
    program = {Runtime.PROJECT: lambda: Path(sys.executable), Runtime.PEERS: _peers_python, Runtime.GO: _yardstick}
    return [str(program[contender.runtime]()), *contender.arguments]


def prepared(contenders: Iterable[Contender]) -> tuple[list[Contender], dict[str, str]]:
    """Make all programs. Return the contenders that can run, and the reason for each that is skipped, by name.

    Raises:
        UnavailableError: the peers' packages can't be installed; the message says why.
    """
    ready, skipped = [], {}
    for contender in contenders:
        try:
            command(contender)
        except MissingGoError as error:
            skipped[contender.name] = str(error)
        else:
            ready.append(contender)
    return ready, skipped


def _peers_python() -> Path:
    directory = _cache("bench-peers", _PEER_LOCK.read_bytes() + sys.version.encode())
    python, complete = directory / "bin" / "python", directory / "complete"
    if not complete.exists():
        venv.create(directory, clear=True, with_pip=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"]
        done = subprocess.run([python, *install, _PEER_LOCK], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"can't install {_PEER_LOCK.name} into {directory}: {_last_line(done.stderr)}")
        complete.touch()
    return python


def _yardstick() -> Path:
    """Path of the yardstick; Go fetches the modules that go.sum names, unless its cache has them."""
    go = shutil.which("go", path=os.pathsep.join((os.environ.get("PATH", ""), *_GO_PLACES)))
    if go is None:
        raise MissingGoError("no command `go`; install Go to compare with the yardstick")
    sources = sorted(path for path in YARDSTICK_SOURCE.iterdir() if path.suffix in {".go", ".mod", ".sum"})
    flags = os.environ.get("GOFLAGS", "").encode()  # other flags, another program
    program = _cache("bench-yardstick", b"".join(path.read_bytes() for path in sources) + flags) / "yardstick"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        build = [go, "build", "-mod=readonly", "-trimpath", "-o", str(unfinished), "."]
        done = subprocess.run(build, cwd=YARDSTICK_SOURCE, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MissingGoError(f"go can't build {YARDSTICK_SOURCE.name}: {_last_line(done.stderr)}")
        unfinished.rename(program)
    return program


def _cache(name: str, content: bytes) -> Path:
    """Directory in the user's cache for something made from `content`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "chimera" / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"


def _last_line(output: str) -> str:
    return output.strip().rpartition("\n")[2]
