"""Roles in ClickHouse: they are declared in access.yaml, and `statements` gives the SQL that creates them.

The development server accepts no such SQL; `pipeline.devstack.clickhouse` gives it a user for each role.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pipeline.catalog import load_topics
from pipeline.clickhouse.session_stats import TABLE

_FILE = Path(__file__).with_suffix(".yaml")
_HOUR_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Limit:
    """Value of a session setting, and the range in which the user may change it; without a range it is fixed."""

    value: int
    min: int | None = None
    max: int | None = None

    @property
    def fixed(self) -> bool:
        """True if the user may not change the setting."""
        return self.max is None


@dataclass(frozen=True, slots=True)
class Role:
    """Grants, session settings and quota of one role.

    Args:
        name: name of the role, of its settings profile and of its quota.
        purpose: description of the role's users.
        grants: grants in SQL, without `GRANT` and `TO`.
        limits: limits by the name of the setting.
        quota: largest amounts in an hour for each user, by resource.
    """

    name: str
    purpose: str
    grants: tuple[str, ...]
    limits: Mapping[str, Limit]
    quota: Mapping[str, int]


@cache
def _declared() -> Mapping[str, Mapping[str, Any]]:
    document: Mapping[str, Mapping[str, Any]] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return document


def load_roles(database: str, topics: Path, own: Path | None = None) -> tuple[Role, ...]:
    """Return the roles.

    Args:
        database: database of the grants.
        topics: path of topics.yaml; the worker fills the tables of its families.
        own: path of the topics of one's own.

    Raises:
        ConfigError: topics.yaml is missing or wrong.
    """
    tables = (*(topic.fills for topic in load_topics(topics, own=own) if topic.fills), TABLE)
    return tuple(
        Role(
            name,
            role["for"],
            tuple(_grants(role["grants"], database, tables)),
            {setting: Limit(**limit) for setting, limit in role["limits"].items()},
            role["quota"],
        )
        for name, role in _declared().items()
    )


def _grants(declared: Iterable[str], database: str, tables: Iterable[str]) -> Iterator[str]:
    """Fill in the database and, in a grant with `{table}`, each of the tables."""
    for grant in declared:
        yield from dict.fromkeys(grant.format(database=database, table=table) for table in tables)


def statements(database: str, topics: Path, own: Path | None = None) -> Iterator[str]:
    """Yield the SQL statements that create the roles or bring existing ones up to date; they may be repeated.

    Args and Raises: as for `load_roles`.
    """
    for role in load_roles(database, topics, own):
        yield f"CREATE ROLE IF NOT EXISTS {role.name}"
        yield f"GRANT {', '.join(role.grants)} TO {role.name} WITH REPLACE OPTION"
        limits = ", ".join(f"{name} = {_range(limit)}" for name, limit in role.limits.items())
        yield f"CREATE SETTINGS PROFILE OR REPLACE {role.name} SETTINGS {limits} TO {role.name}"
        most = ", ".join(f"{name} = {most}" for name, most in role.quota.items())
        hour = f"FOR INTERVAL {_HOUR_SECONDS} second {f'MAX {most}' if most else 'TRACKING ONLY'}"
        yield f"CREATE QUOTA OR REPLACE {role.name} KEYED BY user_name {hour} TO {role.name}"


def _range(limit: Limit) -> str:
    return f"{limit.value} CONST" if limit.fixed else f"{limit.value} MIN {limit.min} MAX {limit.max}"
