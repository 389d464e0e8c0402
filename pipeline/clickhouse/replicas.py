"""Statements of migrations as a cluster needs them: a prefix before the engine, and ON CLUSTER.

Files stay as they are, and so do their checksums: the same migrations make plain tables, replicated ones and those of
ClickHouse Cloud.
"""

import re

_ENGINE = re.compile(r"(?<=\bENGINE=)(?=(?:Replacing)?MergeTree\b)")
_OBJECT = re.compile(
    r"^(\s*(?:CREATE (?:TABLE|FUNCTION) IF NOT EXISTS|CREATE OR REPLACE FUNCTION|ALTER TABLE) \w+)", re.MULTILINE
)


def for_cluster(script: str, *, prefix: str, cluster: str | None) -> str:
    """Return the statement of a migration for a cluster.

    Args:
        script: one statement, as migrations write it; comments come before it.
        prefix: empty, `Replicated` or `Shared`: comes before each engine of the MergeTree family that has none.
        cluster: name of the cluster; None leaves ON CLUSTER out.
    """
    prefixed = _ENGINE.sub(prefix, script)
    if cluster is None:
        return prefixed
    return _OBJECT.sub(lambda match: f"{match[1]} ON CLUSTER `{cluster}`", prefixed, count=1)
