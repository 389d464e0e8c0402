"""Contenders: the worker and its peers, each a process of one Python interpreter."""

import hashlib
import os
import subprocess
import sys
import venv
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config import env_name
from pipeline.errors import UnavailableError

PEER_REQUIREMENTS = Path(__file__).with_name("requirements-peers.txt")
_PEER_LOCK = Path(__file__).parents[1] / "requirements" / "peers.txt"  # the same with all dependencies; by `make lock`


@dataclass(frozen=True, slots=True)
class Contender:
    """One way from the topic into the table."""

    name: str
    title: str
    arguments: tuple[str, ...]
    """Arguments of the interpreter on the command line."""
    own_python: bool = True
    """True if the contender runs in the project's Python environment; else it runs in the peers' own."""
    grouped: bool = True
    """True if the contender reads as a consumer group, so the broker knows when it begins; else it prints `READY`."""
    in_server: bool = False
    """True if ClickHouse does the work; CPU time and memory are then spent there."""
    environment: tuple[tuple[str, str], ...] = ()
    """Additional environment variables."""


WORKER = Contender(
    "chimera", "Chimera worker", ("-m", "faust", "-A", "pipeline", "worker", "--without-web", "--loglevel", "warn")
)

WITHOUT_RANGES = Contender(
    "without_ranges",
    "the same, no ranges committed",
    ("-m", "benchmarks.peers.without_ranges", "-A", "pipeline", "worker", "--without-web", "--loglevel", "warn"),
)

WITHOUT_ROLLUP = replace(
    WORKER,
    name="without_rollup",
    title="the same, no session_stats",
    environment=((env_name("rollup", "enabled"), "false"),),
)

PEERS = (
    Contender(
        "stock_faust",
        "Faust agent, take()",
        ("-m", "benchmarks.peers.stock_faust", "--loop", "uvloop", "worker", "--without-web", "--loglevel", "warn"),
    ),
    Contender("plain_loop", "confluent-kafka loop", ("-m", "benchmarks.peers.plain_loop")),
    Contender("quix", "Quix Streams", ("-m", "benchmarks.peers.quix"), own_python=False),
    Contender(
        "bytewax",
        "Bytewax",
        ("-m", "bytewax.run", "benchmarks.peers.bytewax_flow"),
        own_python=False,
        grouped=False,
    ),
    Contender(
        "clickhouse_kafka_engine",
        "ClickHouse Kafka engine",
        ("-m", "benchmarks.peers.clickhouse_kafka_engine"),
        in_server=True,
    ),
)

CONTENDERS = (WORKER, WITHOUT_RANGES, WITHOUT_ROLLUP, *PEERS)


def interpreter(contender: Contender) -> Path:
    """Path of the contender's Python; the first call creates the peers' environment in the user's cache.

    Raises:
        UnavailableError: the packages can't be installed; the message says why.
    """
    if contender.own_python:
        return Path(sys.executable)
    digest = hashlib.sha256(_PEER_LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(base) / "chimera" / f"bench-peers-{digest}"
    python, complete = directory / "bin" / "python", directory / "complete"
    if not complete.exists():
        venv.create(directory, clear=True, with_pip=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"]
        done = subprocess.run([python, *install, _PEER_LOCK], capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().rpartition("\n")[2]
            raise UnavailableError(f"can't install {_PEER_LOCK.name} into {directory}: {reason}")
        complete.touch()
    return python
