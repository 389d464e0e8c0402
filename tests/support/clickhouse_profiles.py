"""A ClickHouse server whose users have settings profiles and row policies, as an administrator may have given them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from pipeline.config import ClickHouseSettings
from pipeline.devstack.clickhouse import ClickHouseServer, ClickHouseUser


@dataclass(frozen=True, slots=True)
class Account:
    """A user who may do everything, with settings of its own and filters on what it sees.

    Args:
        name: of the user; it has no password.
        profile: value of each setting.
        constants: names of settings that the user may not change.
        filters: SQL condition of the rows that the user sees, by database and table, such as `db.table`.
    """

    name: str
    profile: Mapping[str, str | int] = field(default_factory=dict)
    constants: tuple[str, ...] = ()
    filters: Mapping[str, str] = field(default_factory=dict)


class ProfiledServer(ClickHouseServer):
    """ClickHouse with these accounts besides `default`.

    Args:
        directory: configuration, data and logs.
        accounts: may be replaced; the server reads them at its next start.
    """

    def __init__(self, directory: Path, *accounts: Account) -> None:
        super().__init__(directory, users=[ClickHouseUser(account.name) for account in accounts])
        self._accounts = accounts

    def settings_of(self, user: str, database: str) -> ClickHouseSettings:
        """Settings with which this user logs in."""
        return ClickHouseSettings.model_validate({"port": self.port, "user": user, "database": database})

    def _prepare(self) -> list[str]:
        command = super()._prepare()
        file = self.directory / "users.xml"
        document = ET.parse(file)
        for account in self._accounts:
            _add(document, account)
        document.write(file, encoding="utf-8", xml_declaration=True)
        return command


def _add(document: "ET.ElementTree[ET.Element]", account: Account) -> None:
    profile, user = document.find(f"profiles/{account.name}"), document.find(f"users/{account.name}")
    assert profile is not None
    assert user is not None
    for name, value in account.profile.items():
        ET.SubElement(profile, name).text = str(value)
    constraints = profile.find("constraints")
    for name in account.constants:
        assert constraints is not None
        ET.SubElement(ET.SubElement(constraints, name), "const")
    databases = ET.SubElement(user, "databases")
    for table, condition in account.filters.items():
        parent = databases
        for part in table.split("."):
            parent = ET.SubElement(parent, part)
        ET.SubElement(parent, "filter").text = condition
