"""TLS and login of ClickHouse: the settings apply to a real connection."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr
from support.containers import ContainerStack
from support.events import events, rows, settled
from support.processes import Worker, last_word, prepare
from support.tls import TlsTerminator

from pipeline.clickhouse.client import connect, explained
from pipeline.config import ClickHouseSettings, Settings, env_name
from pipeline.devstack import Stack
from pipeline.devstack.clickhouse import ClickHouseServer, ClickHouseUser
from pipeline.errors import HaltError, UnavailableError
from pipeline.producer.producer import Producer

pytestmark = pytest.mark.integration

_WRITER = ClickHouseUser("writer", "correct horse", grants=("GRANT SELECT ON system.one",))


@pytest.fixture
def terminator(stack: Stack | ContainerStack, tmp_path: Path) -> Iterator[TlsTerminator]:
    with TlsTerminator(stack.clickhouse.port, tmp_path) as running:
        yield running


def _one(settings: ClickHouseSettings) -> object:
    with explained(settings), connect(settings, database="") as client:
        return client.execute("SELECT 1")


def test_a_known_authority_is_accepted(settings: Settings, terminator: TlsTerminator) -> None:
    """A query works through the terminator, which accepts only TLS."""
    update = {"port": terminator.port, "secure": True, "ca_cert": terminator.ca_cert}
    assert _one(settings.clickhouse.model_copy(update=update)) == [(1,)]


def test_an_unchecked_certificate_is_accepted(settings: Settings, terminator: TlsTerminator) -> None:
    """With `verify` off, a certificate of an unknown authority is accepted."""
    update = {"port": terminator.port, "secure": True, "verify": False}
    assert _one(settings.clickhouse.model_copy(update=update)) == [(1,)]


@pytest.mark.parametrize("known", ["nobody", "another authority", "no certificate"])
def test_an_unknown_authority_halts(
    known: str, settings: Settings, terminator: TlsTerminator, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Another attempt would fail too; the error names the settings."""
    directory = tmp_path_factory.mktemp("other")
    ca_cert = TlsTerminator(terminator.port, directory).ca_cert if known == "another authority" else None
    if known == "no certificate":
        ca_cert = directory / "ca.pem"
        ca_cert.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", encoding="utf-8")
    update = {"port": terminator.port, "secure": True, "ca_cert": ca_cert}
    expected = rf"^ClickHouse at 127\.0\.0\.1:{terminator.port}: no TLS connection: .*CHIMERA_CLICKHOUSE__CA_CERT"
    with pytest.raises(HaltError, match=expected):
        _one(settings.clickhouse.model_copy(update=update))


def test_a_certificate_for_another_host_halts(
    settings: Settings, stack: Stack | ContainerStack, tmp_path: Path
) -> None:
    """The certificate must have the name of the host, even from a known authority."""
    with TlsTerminator(stack.clickhouse.port, tmp_path, "elsewhere.example") as terminator:
        update = {"port": terminator.port, "secure": True, "ca_cert": terminator.ca_cert}
        with pytest.raises(HaltError, match="IP address mismatch"):
            _one(settings.clickhouse.model_copy(update=update))


def test_tls_to_a_port_without_it_halts(settings: Settings) -> None:
    """A server without TLS halts the client, also with `verify` off."""
    with pytest.raises(HaltError, match=r"no TLS connection: .*CHIMERA_CLICKHOUSE__SECURE"):
        _one(settings.clickhouse.model_copy(update={"secure": True, "verify": False}))


def test_plain_text_to_a_tls_port_is_unavailable(settings: Settings, terminator: TlsTerminator) -> None:
    """The server closes the connection, which may be an outage; the error suggests TLS."""
    with pytest.raises(UnavailableError, match=r"if the server expects TLS, set CHIMERA_CLICKHOUSE__SECURE$"):
        _one(settings.clickhouse.model_copy(update={"port": terminator.port}))


def test_a_stopped_server_with_tls_is_unavailable(settings: Settings, tmp_path: Path) -> None:
    """An outage isn't taken for a refused certificate."""
    with TlsTerminator(1, tmp_path) as terminator:
        update = {"port": terminator.port, "secure": True, "ca_cert": terminator.ca_cert}
    with pytest.raises(UnavailableError, match="Connection refused"):
        _one(settings.clickhouse.model_copy(update=update))


@pytest.mark.parametrize(("secure", "port"), [(True, 9440), (False, 9000)], ids=["TLS", "plain"])
def test_the_usual_port_is_the_default(secure: bool, port: int) -> None:
    """The default port is 9440 with TLS and 9000 without."""
    assert list(connect(ClickHouseSettings(secure=secure)).connection.hosts) == [("127.0.0.1", port)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse"), users=[_WRITER]) as running:
        yield running


def test_user_and_password_log_in(server: ClickHouseServer) -> None:
    """The session belongs to the configured user, not to the default one."""
    settings = ClickHouseSettings(port=server.port, user="writer", password=SecretStr("correct horse"))
    with connect(settings, database="") as client:
        assert client.execute("SELECT currentUser()") == [("writer",)]


@pytest.mark.parametrize(
    ("user", "password"),
    [("writer", "wrong"), ("writer", ""), ("nobody", "correct horse")],
    ids=["wrong password", "no password", "no such user"],
)
def test_a_wrong_login_halts(server: ClickHouseServer, user: str, password: str) -> None:
    """The error names both settings and contains no password."""
    settings = ClickHouseSettings(port=server.port, user=user, password=SecretStr(password))
    with pytest.raises(HaltError) as refusal:
        _one(settings)
    assert str(refusal.value) == (
        f"ClickHouse at 127.0.0.1:{server.port} refuses user {user!r} or the password; "
        "check CHIMERA_CLICKHOUSE__USER and CHIMERA_CLICKHOUSE__PASSWORD"
    )


def test_a_missing_grant_halts(server: ClickHouseServer) -> None:
    """A missing grant halts: waiting would not bring it."""
    settings = ClickHouseSettings(port=server.port, user="writer", password=SecretStr("correct horse"))
    client = connect(settings, database="")
    with client, pytest.raises(HaltError, match="Not enough privileges"), explained(settings):
        client.execute("CREATE DATABASE another")


def test_a_worker_works_over_tls(
    settings: Settings, environ: dict[str, str], terminator: TlsTerminator, tmp_path: Path
) -> None:
    """The worker checks the tables and stores rows over TLS; it doesn't know the server's plain port."""
    family = prepare(settings).family("ui_events")
    with Producer(settings) as producer:
        for event in events("ui_events", 100):
            producer.send("ui_events", event)
    with Worker(environ | _over_tls(terminator, terminator.ca_cert), tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, 100)
    assert len(rows(settings, "ui_events")) == 100


def _over_tls(terminator: TlsTerminator, ca_cert: Path) -> dict[str, str]:
    values = {"port": str(terminator.port), "secure": "true", "ca_cert": str(ca_cert)}
    return {env_name("clickhouse", key): value for key, value in values.items()}


def test_a_worker_refuses_another_authority(
    settings: Settings, environ: dict[str, str], terminator: TlsTerminator, tmp_path: Path
) -> None:
    """The worker stops with one line: waiting would not change the certificate."""
    prepare(settings)
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with Worker(environ | _over_tls(terminator, tmp_path / "other.pem"), tmp_path / "log") as worker:
        line = last_word(worker, HaltError.exit_code)
    assert f"ClickHouse at 127.0.0.1:{terminator.port}: no TLS connection: " in line
    assert "CHIMERA_CLICKHOUSE__CA_CERT" in line
