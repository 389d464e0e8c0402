"""Statements of migrations as a cluster needs them: a prefix before the engine, ON CLUSTER, and settings by themselves.

Files stay as they are, and so do their checksums: the same migrations make plain tables, replicated ones and those of
ClickHouse Cloud.
"""

import re
from typing import Any

from pipeline.errors import UnavailableError

_ANSWER_COLUMNS = 6  # host, port, status, error, hosts remaining, hosts active
_ENGINE = re.compile(r"(?<=\bENGINE=)(?=(?:Replacing)?MergeTree\b)")
_OBJECT = re.compile(
    r"^(\s*(?:CREATE (?:TABLE|FUNCTION) IF NOT EXISTS|CREATE OR REPLACE FUNCTION|ALTER TABLE) `?\w+`?)", re.MULTILINE
)
# An ALTER that changes more than settings is carried out by one replica, and its settings stay there.
_SETTINGS = re.compile(r"^(ALTER TABLE \w+)(.+),(\s*MODIFY SETTING\s[^;]+)", re.MULTILINE | re.DOTALL)

DDL_SETTINGS = {"distributed_ddl_output_mode": "throw_only_active"}
"""Settings of statements ON CLUSTER: the answer names the servers that are away."""


def for_cluster(script: str, *, prefix: str, cluster: str | None) -> str:
    """Return the statement of a migration for a cluster; two for one that changes settings and something else.

    Args:
        script: one statement, as migrations write it; comments come before it, and MODIFY SETTING comes last.
        prefix: empty, `Replicated` or `Shared`: comes before each engine of the MergeTree family that has none.
        cluster: name of the cluster; None leaves ON CLUSTER out.
    """
    prefixed = _ENGINE.sub(prefix, script)
    if cluster is None:
        return prefixed
    apart = _SETTINGS.sub(r"\1\2;\n\1\3", prefixed)
    return _OBJECT.sub(lambda match: f"{match[1]} ON CLUSTER `{cluster}`", apart)


def execute_everywhere(client: Any, statement: str) -> None:
    """Run a statement without rows; one ON CLUSTER at all servers of the cluster.

    Raises:
        UnavailableError: a server of the cluster is away.
        clickhouse_driver.errors.Error, OSError, EOFError: the statement failed.
    """
    settings = DDL_SETTINGS if " ON CLUSTER " in statement else None
    if servers := away(client.execute(statement, settings=settings)):
        raise UnavailableError(
            f"{', '.join(servers)}: this server of the cluster is away; expected all to be there, since it can't "
            "create a table later that has changed meanwhile: start it, or take it out of the cluster's "
            "configuration, and run the same command again"
        )


def away(rows: Any) -> list[str]:
    """Return host and port of the servers that haven't carried out a statement ON CLUSTER yet, by its answer."""
    return [f"{row[0]}:{row[1]}" for row in rows or () if len(row) == _ANSWER_COLUMNS and row[2] is None]
