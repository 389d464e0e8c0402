"""A real ClickHouse server from the chdb-core wheel, with native protocol and HTTP."""

import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree as ET

from pipeline.clickhouse.access import Limit, Role
from pipeline.clickhouse.volumes import VOLUMES
from pipeline.config import ClickHouseSettings
from pipeline.devstack.extra import package_directory
from pipeline.devstack.ports import HOST
from pipeline.devstack.server import Server
from pipeline.devstack.web import is_ok

_ANSWER_SECONDS = 2.0
_GIB = 1024**3
_HOUR_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class ClickHouseUser:
    """User of the server, who can log in from this machine only.

    Args:
        name: value for `CHIMERA_CLICKHOUSE__USER`.
        password: an empty one means login without a password. The configuration holds only its hash.
        grants: statements such as `GRANT SELECT ON chimera_metrics.*`; without grants the user may do everything.
        limits: settings of the user's sessions, and the ranges in which a session may change them.
        quota: upper bounds for one hour, by name of the resource.
    """

    name: str
    password: str = ""
    grants: tuple[str, ...] = ()
    limits: Mapping[str, Limit] = field(default_factory=dict)
    quota: Mapping[str, int] = field(default_factory=dict)


DEFAULT_USER = ClickHouseUser("default")


def users_of(roles: Iterable[Role]) -> tuple[ClickHouseUser, ...]:
    """Return a user for each role. The role's name is user name and password; logins from elsewhere are refused."""
    return tuple(
        ClickHouseUser(
            role.name, role.name, tuple(f"GRANT {grant}" for grant in role.grants), limits=role.limits, quota=role.quota
        )
        for role in roles
    )


class ClickHouseServer(Server):
    """ClickHouse server on the loopback interface.

    Args:
        directory: holds configuration, data and logs.
        port: port for the native protocol; the last port used in the directory, or a free one, when None.
        http_port: port of the HTTP interface; chosen likewise.
        users: users in addition to `default`, which has no password; a user named `default` replaces it.
        usual_ports: prefer 9000 and 8123, if they are free, where no port was chosen before.
    """

    name: ClassVar[str] = "ClickHouse server"
    usual_ports: ClassVar[Mapping[str, int]] = {"port": 9000, "http_port": 8123}

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        http_port: int | None = None,
        users: Iterable[ClickHouseUser] = (),
        usual_ports: bool = False,
    ) -> None:
        super().__init__(directory, {"port": port, "http_port": http_port}, usual_ports=usual_ports)
        self._users = {user.name: user for user in (DEFAULT_USER, *users)}

    @property
    def http_port(self) -> int:
        """Port of the HTTP interface."""
        return self._ports["http_port"]

    @property
    def log_file(self) -> Path:
        """The server's warnings and errors."""
        return self.directory / "server.log"

    def _prepare(self) -> list[str]:
        package_directory("chdb")  # reports a missing extra here, not in the server's log
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        users = self.directory / "users.xml"
        users.touch(mode=0o600)
        users.write_bytes(_xml(_users(self._users.values())))
        (self.directory / "config.xml").write_bytes(_xml(self._configuration()))
        return [sys.executable, "-m", "pipeline.devstack.engine", str(self.directory), str(data)]

    def _configuration(self) -> ET.Element:
        values = {
            "listen_host": HOST,
            "tcp_port": str(self.port),
            "http_port": str(self.http_port),
            "users_config": "users.xml",
            # ClickHouse refuses a query that needs more memory than a small machine has.
            "max_server_memory_usage": str(3 * _GIB),
            "mark_cache_size": str(_GIB // 16),
        }
        root = ET.Element("clickhouse")
        for name, value in values.items():
            ET.SubElement(root, name).text = value
        # As on other servers; the engine has none without it.
        log = ET.SubElement(root, "query_log")
        for name, value in {"database": "system", "table": "query_log", "ttl": "event_date + INTERVAL 2 DAY"}.items():
            ET.SubElement(log, name).text = value
        root.append(_storage(self.directory))
        ET.SubElement(ET.SubElement(root, "backups"), "allowed_disk").text = "backups"
        # The engine applies a log level to `errorlog` only; `log` would be a full trace.
        ET.SubElement(ET.SubElement(root, "logger"), "errorlog").text = str(self.log_file)
        return root

    def _answers(self) -> bool:
        # The HTTP interface starts last: once it answers, the native protocol answers too.
        return is_ok(self.http_port, "/ping", seconds=_ANSWER_SECONDS)


def _storage(directory: Path) -> ET.Element:
    """Return a policy with the volumes that `chimera storage` moves days to, and a disk for backups.

    The first volume is the data directory.
    """
    root = ET.Element("storage_configuration")
    disks, policies = ET.SubElement(root, "disks"), ET.SubElement(root, "policies")
    volumes = ET.SubElement(ET.SubElement(policies, ClickHouseSettings().storage_policy), "volumes")
    for volume in ("default", *VOLUMES):
        ET.SubElement(ET.SubElement(volumes, volume), "disk").text = volume
    for disk, path in {
        **{volume: directory / "disks" / volume for volume in VOLUMES},
        "backups": directory / "backups",
    }.items():
        path.mkdir(parents=True, exist_ok=True)
        ET.SubElement(ET.SubElement(disks, disk), "path").text = f"{path}/"
    return root


def _users(users: Iterable[ClickHouseUser]) -> ET.Element:
    root = ET.Element("clickhouse")
    profiles, accounts, quotas = (ET.SubElement(root, name) for name in ("profiles", "users", "quotas"))
    for user in users:
        profiles.append(_profile(user))
        accounts.append(_account(user))
        interval = ET.SubElement(ET.SubElement(quotas, user.name), "interval")
        for name, value in {"duration": _HOUR_SECONDS, **user.quota}.items():
            ET.SubElement(interval, name).text = str(value)
    return root


def _profile(user: ClickHouseUser) -> ET.Element:
    profile = ET.Element(user.name)
    for name, limit in user.limits.items():
        ET.SubElement(profile, name).text = str(limit.value)
    constraints = ET.SubElement(profile, "constraints")
    for name, limit in user.limits.items():
        constraint = ET.SubElement(constraints, name)
        if limit.fixed:
            ET.SubElement(constraint, "const")
        else:
            ET.SubElement(constraint, "min").text = str(limit.min)
            ET.SubElement(constraint, "max").text = str(limit.max)
    return profile


def _account(user: ClickHouseUser) -> ET.Element:
    account = ET.Element(user.name)
    if user.password:
        ET.SubElement(account, "password_sha256_hex").text = hashlib.sha256(user.password.encode()).hexdigest()
    else:
        ET.SubElement(account, "no_password")
    networks = ET.SubElement(account, "networks")
    ET.SubElement(networks, "ip").text = HOST
    ET.SubElement(account, "profile").text = user.name
    ET.SubElement(account, "quota").text = user.name
    if user.grants:
        grants = ET.SubElement(account, "grants")
        for grant in user.grants:
            ET.SubElement(grants, "query").text = grant
    return account


def _xml(root: ET.Element) -> bytes:
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document
