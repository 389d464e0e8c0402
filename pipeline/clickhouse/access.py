"""Who may do what in ClickHouse: the roles of access.yaml, and the SQL that makes them on a server.

The development server takes no such SQL: `pipeline.devstack.clickhouse` gives it a user for each role.
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
    """A setting of a session, and between which values its user may change it; without them it is fixed."""

    value: int
    min: int | None = None
    max: int | None = None

    @property
    def fixed(self) -> bool:
        """Whether the user may not change it."""
        return self.max is None


@dataclass(frozen=True, slots=True)
class Role:
    """What somebody may do, and how much of it.

    Args:
        name: of the role, of its settings profile and of its quota.
        purpose: who has it, in words.
        grants: as in SQL, without the word GRANT and to whom.
        limits: by setting.
        quota: most of these in an hour, for each user.
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


def load_roles(database: str, topics: Path) -> tuple[Role, ...]:
    """The three roles.

    Args:
        database: that their grants are on.
        topics: the topics.yaml whose families' tables the worker fills.

    Raises:
        ConfigError: topics.yaml is missing or wrong.
    """
    tables = (*(topic.fills for topic in load_topics(topics) if topic.fills), TABLE)
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
    """The declared ones; what is meant for each table, for each."""
    for grant in declared:
        yield from dict.fromkeys(grant.format(database=database, table=table) for table in tables)


def statements(database: str, topics: Path) -> Iterator[str]:
    """SQL that makes the roles, and makes those that are there already what they should be; may be repeated.

    Args and Raises are those of `load_roles`.
    """
    for role in load_roles(database, topics):
        yield f"CREATE ROLE IF NOT EXISTS {role.name}"
        yield f"GRANT {', '.join(role.grants)} TO {role.name} WITH REPLACE OPTION"
        limits = ", ".join(f"{name} = {_range(limit)}" for name, limit in role.limits.items())
        yield f"CREATE SETTINGS PROFILE OR REPLACE {role.name} SETTINGS {limits} TO {role.name}"
        most = ", ".join(f"{name} = {most}" for name, most in role.quota.items())
        hour = f"FOR INTERVAL {_HOUR_SECONDS} second {f'MAX {most}' if most else 'TRACKING ONLY'}"
        yield f"CREATE QUOTA OR REPLACE {role.name} KEYED BY user_name {hour} TO {role.name}"


def _range(limit: Limit) -> str:
    return f"{limit.value} CONST" if limit.fixed else f"{limit.value} MIN {limit.min} MAX {limit.max}"
