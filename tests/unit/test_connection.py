"""Migrations reach the server as everything else does."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from pipeline.clickhouse import connect
from pipeline.config import ClickHouseSettings
from pipeline.migrate import _cluster


def _login(client: Any) -> dict[str, Any]:
    connection = client.connection
    names = ("user", "password", "database", "connect_timeout", "send_receive_timeout", "secure_socket", "ssl_options")
    return {"hosts": list(connection.hosts), **{name: getattr(connection, name) for name in names}}


def test_migrations_connect_and_log_in_as_the_sink_does(tmp_path: Path) -> None:
    """Address, user, password, TLS, authority and timeouts are the same for both, and none is a default."""
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
