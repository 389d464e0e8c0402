"""Settings of TLS and logins: incomplete ones are refused, and secrets are masked in every output."""

import json
import os
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.config import ENV_PREFIX, by_env_name, load_settings
from pipeline.errors import ConfigError

_LOGIN = {"SECURITY_PROTOCOL": "SASL_SSL", "USER": "someone", "PASSWORD": "s3cret"}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


def _set(monkeypatch: pytest.MonkeyPatch, **kafka: str) -> None:
    for name, value in kafka.items():
        monkeypatch.setenv(f"CHIMERA_KAFKA__{name}", value)


@pytest.mark.parametrize(
    ("given", "named", "expected"),
    [
        pytest.param({"USER": "someone"}, "USER", "none, as", id="an unused login"),
        pytest.param({"CA_CERT": __file__}, "CA_CERT", "none, as", id="an authority without TLS"),
        pytest.param({"SECURITY_PROTOCOL": "SASL_SSL"}, "USER", "a value, as", id="no login"),
        pytest.param(_LOGIN | {"PASSWORD": ""}, "PASSWORD", "a value, as", id="no password"),
        pytest.param(_LOGIN | {"SASL_MECHANISM": "OAUTHBEARER"}, "OAUTH_TOKEN_URL", "a value, as", id="no issuer"),
        pytest.param(
            _LOGIN | {"OAUTH_TOKEN_URL": "http://a/"}, "OAUTH_TOKEN_URL", "none, as", id="an issuer for SCRAM"
        ),
        pytest.param(
            _LOGIN | {"CLIENT_CERT": __file__}, "CLIENT_KEY", "a value, as", id="a certificate without its key"
        ),
        pytest.param(_LOGIN | {"CA_CERT": __file__}, "CA_CERT", "", id="a file without a certificate"),
        pytest.param(_LOGIN | {"SECURITY_PROTOCOL": "TLS"}, "SECURITY_PROTOCOL", "'PLAINTEXT'", id="no such protocol"),
        pytest.param(_LOGIN | {"SASL_MECHANISM": "GSSAPI"}, "SASL_MECHANISM", "'PLAIN', ", id="no such mechanism"),
    ],
)
def test_incomplete_or_unused_settings_are_refused(
    given: dict[str, str], named: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line gives the setting and the ones it contradicts, and contains no secret."""
    _set(monkeypatch, **given)
    with pytest.raises(ConfigError) as refusal:
        load_settings()
    assert str(refusal.value).startswith(f"CHIMERA_KAFKA__{named}")
    assert f"expected {expected}" in str(refusal.value)
    assert "s3cret" not in str(refusal.value)


def test_a_certificate_with_another_key_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The check comes before any connection."""
    authority = trustme.CA()
    authority.issue_cert("a.example").cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.issue_cert("b.example").private_key_pem.write_to_path(tmp_path / "key.pem")
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    _set(monkeypatch, SECURITY_PROTOCOL="SSL", CLIENT_CERT=cert, CLIENT_KEY=key)
    with pytest.raises(
        ConfigError, match="CHIMERA_KAFKA__CLIENT_KEY: expected PEM files, a certificate and its own key"
    ):
        load_settings()


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "JSON"])
def test_settings_are_shown_with_their_source(form: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting is shown; secrets are masked there and in the text forms of the settings."""
    monkeypatch.setenv("CHIMERA_CLICKHOUSE__PASSWORD", "s3cret")
    _set(monkeypatch, **_LOGIN)
    shown = CliRunner().invoke(cli, ["config", "show", *form]).output
    assert all(name in shown for name in by_env_name(load_settings()))
    assert "s3cret" not in shown
    assert "s3cret" not in repr(load_settings()) + str(load_settings().model_dump())
    if form:
        rows = json.loads(shown)
        assert rows["CHIMERA_KAFKA__USER"] == {"value": "someone", "source": "environment"}
        assert rows["CHIMERA_KAFKA__PASSWORD"] == {"value": "********", "source": "environment"}
        assert rows["CHIMERA_REGISTRY__PASSWORD"] == {"value": None, "source": "default"}
        assert rows["CHIMERA_CLICKHOUSE__SECURE"] == {"value": False, "source": "default"}


def test_the_sql_of_the_roles_names_the_configured_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """`chimera access sql` prints the SQL without a server."""
    monkeypatch.setenv("CHIMERA_CLICKHOUSE__DATABASE", "staging")
    sql = CliRunner().invoke(cli, ["access", "sql"]).output
    assert "GRANT SELECT ON staging.* TO chimera_reader WITH REPLACE OPTION;" in sql
    assert "chimera_metrics" not in sql
