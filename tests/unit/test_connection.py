"""Migrations use the same connection settings as the sink, and check their files first."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from pipeline.clickhouse.client import connect
from pipeline.clickhouse.migrate import _cluster, pending
from pipeline.config import ClickHouseSettings
from pipeline.errors import ConfigError


def _login(client: Any) -> dict[str, Any]:
    connection = client.connection
    names = ("user", "password", "database", "connect_timeout", "send_receive_timeout", "secure_socket", "ssl_options")
    return {"hosts": list(connection.hosts), **{name: getattr(connection, name) for name in names}}


def test_migrations_connect_and_log_in_as_the_sink_does(tmp_path: Path) -> None:
    """Address, user, password, TLS, authority and timeouts are equal for both, and none is a default."""
    authority = tmp_path / "ca.pem"
    authority.touch()
    settings = ClickHouseSettings(
        host="clickhouse.example",
        user="writer",
        password=SecretStr("correct horse"),
        secure=True,
        verify=False,
        ca_cert=authority,
        connect_timeout_seconds=3,
        query_timeout_seconds=7,
    )
    migrations = _login(_cluster(settings).connection(settings.database)._client)
    assert migrations == _login(connect(settings))
    assert migrations["hosts"] == [("clickhouse.example", 9440)]
    assert migrations["user"] == "writer"
    assert migrations["secure_socket"]
    assert migrations["ssl_options"]["ca_certs"] == str(settings.ca_cert)


@pytest.mark.parametrize(
    ("name", "script", "expected"),
    [
        pytest.param("first.sql", b"SELECT 1", "a name of the form <NNN>_<what>.sql", id="no number"),
        pytest.param("9_x.sql", b"SELECT 1", "a name of the form <NNN>_<what>.sql", id="one digit"),
        pytest.param("009-x.sql", b"SELECT 1", "a name of the form <NNN>_<what>.sql", id="a dash"),
        pytest.param("009_x.sql", b"SELECT 1; SELECT 2", "one statement, got 2", id="two statements"),
        pytest.param("009_x.sql", b"-- later;\n", "one statement, got 0", id="no statement"),
    ],
)
def test_a_wrong_migration_is_named_before_the_server_is_asked(
    tmp_path: Path, name: str, script: bytes, expected: str
) -> None:
    """The error gives the file and the expected form; the check needs no server."""
    (tmp_path / name).write_bytes(script)
    with pytest.raises(ConfigError) as failure:
        pending(ClickHouseSettings(port=1), tmp_path)
    assert str(failure.value).startswith(f"{tmp_path / name}: expected {expected}")
