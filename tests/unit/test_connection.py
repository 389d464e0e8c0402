"""Connections use all of their settings, and migrations check their files before they connect."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.clickhouse.client import connect
from pipeline.clickhouse.migrate import pending
from pipeline.config import ClickHouseSettings
from pipeline.errors import ConfigError


def test_every_setting_of_the_connection_is_used(tmp_path: Path) -> None:
    """Address, user, password, TLS, authority and timeouts are those of the settings, and none is a default."""
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
    connection = connect(settings).connection
    assert list(connection.hosts) == [("clickhouse.example", 9440)]
    assert (connection.user, connection.password, connection.database) == ("writer", "correct horse", settings.database)
    assert (connection.connect_timeout, connection.send_receive_timeout) == (3, 7)
    assert connection.secure_socket
    assert connection.ssl_options["ca_certs"] == str(settings.ca_cert)
    assert not connection.verify_cert


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
