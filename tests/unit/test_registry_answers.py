"""Each HTTP answer of the registry becomes one of our failures, never a traceback."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import trustme

from pipeline.config import RegistrySettings, load_settings
from pipeline.errors import HaltError, UnavailableError, UnclearError
from pipeline.kafka.registry import SchemaRegistry, UnknownSchemaError
from pipeline.schema.versions import load_schemas
from pipeline.tls import system_authorities

_PAGE = "<html><body>Please log in</body></html>"
_UNKNOWN = json.dumps({"error_code": 40403, "message": "Schema not found"})


@contextmanager
def _answering(status: int, body: str, authority: trustme.CA | None = None) -> Iterator[SchemaRegistry]:
    """Client of a server that gives this answer to everything, over TLS if it has an authority."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET  # noqa: N815 (the handler's name)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        if authority:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield SchemaRegistry(RegistrySettings(url=f"http{'s' * bool(authority)}://127.0.0.1:{server.server_port}"))
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        pytest.param(200, _PAGE, UnclearError, id="a page"),
        pytest.param(200, "", UnclearError, id="nothing"),
        pytest.param(200, '{"schema": "{\\"type\\"', UnclearError, id="half of an answer"),
        pytest.param(200, "[]", UnclearError, id="a list"),
        pytest.param(200, "{}", UnclearError, id="an empty object"),
        pytest.param(200, "null", UnclearError, id="null"),
        pytest.param(200, '{"schema": 7}', UnclearError, id="a number for a schema"),
        pytest.param(200, '{"schema": NaN}', UnclearError, id="no number for a schema"),
        pytest.param(200, "[" * 100_000, UnclearError, id="JSON without end"),
        pytest.param(404, "[" * 100_000, UnclearError, id="JSON without end in a refusal"),
        pytest.param(404, '{"error_code": 1, "message": "two\\nlines"}', HaltError, id="two lines"),
        pytest.param(302, _PAGE, HaltError, id="redirected"),
        pytest.param(401, _PAGE, HaltError, id="no login"),
        pytest.param(403, "", HaltError, id="forbidden"),
        pytest.param(404, _PAGE, HaltError, id="wrong path"),
        pytest.param(404, _UNKNOWN, UnknownSchemaError, id="unknown id"),
        pytest.param(408, "", UnavailableError, id="timed out"),
        pytest.param(429, _PAGE, UnavailableError, id="too many requests"),
        pytest.param(500, _PAGE, UnavailableError, id="failure"),
        pytest.param(503, "{", UnavailableError, id="not available"),
    ],
)
def test_each_answer_is_a_failure_of_ours(status: int, body: str, expected: type[Exception]) -> None:
    """Passing failures are tried again, unclear ones for a while, and the others need a person."""
    with _answering(status, body) as registry, pytest.raises(expected) as failure:
        registry.schema(7)
    assert type(failure.value) is expected
    assert len(str(failure.value).splitlines()) == 1
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("body", [_PAGE, "{}", "[]"], ids=["a page", "an empty object", "a list"])
def test_a_schema_is_not_registered_at_a_page(body: str) -> None:
    """The producer's look for its schema's id ends with one line, too."""
    schema = load_schemas(load_settings().schemas.directory)["ui_events"][-1]
    with _answering(200, body) as registry, pytest.raises(UnclearError, match="not that of a schema registry"):
        registry.schema_id("topic", schema)


@pytest.fixture
def company() -> Iterator[tuple[trustme.CA, RegistrySettings]]:
    """Authority of a company, and a registry with a certificate of it that knows no schema."""
    authority = trustme.CA()
    with _answering(404, _UNKNOWN, authority) as registry:
        yield authority, registry._settings


def test_the_registry_may_have_a_certificate_that_the_system_trusts(
    company: tuple[trustme.CA, RegistrySettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's own list of authorities lacks a company's; a system without a store leaves it to that list."""
    authority, registry = company
    authority.cert_pem.write_to_path(tmp_path / "system.pem")
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    store = ssl.get_default_verify_paths()._replace(cafile=str(tmp_path / "system.pem"))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: store)
    with pytest.raises(UnknownSchemaError):
        SchemaRegistry(registry).schema(7)
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(
        ssl, "get_default_verify_paths", lambda: store._replace(cafile="", capath=str(tmp_path / "empty"))
    )
    assert system_authorities() is None


def test_a_certificate_that_nobody_trusts_needs_a_person(company: tuple[trustme.CA, RegistrySettings]) -> None:
    """One line says what is wrong; to try again would never end."""
    with pytest.raises(HaltError, match="no TLS connection: unable to get local issuer certificate; expected"):
        SchemaRegistry(company[1]).schema(7)
