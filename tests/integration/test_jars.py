"""The jars' download, from a repository whose certificate a company's own authority has signed."""

import hashlib
import ssl
import threading
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from pipeline.devstack import jars
from pipeline.devstack.ports import HOST
from pipeline.errors import UnavailableError

pytestmark = pytest.mark.integration

_COORDINATE = "org.example:thing:1.0"
_CONTENT = b"a jar"


class _Repository(SimpleHTTPRequestHandler):
    """A repository that is overloaded as many times as it is told."""

    refusals = iter(())

    def send_head(self) -> Any:
        if next(self.refusals, None) is None:
            return super().send_head()
        self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
        return None


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Authority of a repository with one jar; jgo's configuration names the repository as the only one."""
    authority = trustme.CA()
    folder = tmp_path / "repository/org/example/thing/1.0"
    folder.mkdir(parents=True)
    (folder / "thing-1.0.jar").write_bytes(_CONTENT)
    handler = partial(_Repository, directory=str(tmp_path / "repository"))
    server = ThreadingHTTPServer((HOST, 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = tmp_path / "home"
    (home / ".config").mkdir(parents=True)
    (home / ".config/jgo.conf").write_text(
        f"[repositories]\ncompany = https://{HOST}:{server.server_port}\n", encoding="utf-8"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    return authority


def _fetch(tmp_path: Path) -> bytes:
    jar = jars.Jar(_COORDINATE, hashlib.sha256(_CONTENT).hexdigest())
    jars._fetch_one(jars._maven(tmp_path / "staging"), jar, tmp_path)
    return (tmp_path / jar.file_name).read_bytes()


def test_the_download_trusts_the_authorities_of_the_system(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An authority in the system's store is trusted, though the package with Mozilla's authorities doesn't have it."""
    authority.cert_pem.write_to_path(tmp_path / "system.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))  # OpenSSL's name for the system's store
    assert _fetch(tmp_path) == _CONTENT


@pytest.mark.usefixtures("authority")
def test_the_download_trusts_no_other_authority(tmp_path: Path) -> None:
    """A repository with a certificate of an unknown authority is refused, and the failure is named."""
    with pytest.raises(UnavailableError, match="SSLError"):
        _fetch(tmp_path)


def test_a_download_that_fails_is_tried_again(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that fails for a moment stops nobody's first start; one that goes on failing is named."""
    authority.cert_pem.write_to_path(tmp_path / "system.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    monkeypatch.setattr(_Repository, "refusals", iter(range(2)))
    assert _fetch(tmp_path) == _CONTENT
    monkeypatch.setattr(_Repository, "refusals", iter(range(1000)))
    with pytest.raises(UnavailableError, match="can't download"):
        _fetch(tmp_path)
