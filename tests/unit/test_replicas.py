"""The migrations' statements for a cluster."""

import re

import pytest
from clickhouse_migrations.migrator import Migrator

from pipeline.clickhouse.migrate import MIGRATIONS
from pipeline.clickhouse.replicas import for_cluster

_SCRIPTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(MIGRATIONS.glob("*.sql"))}


@pytest.mark.parametrize("name", _SCRIPTS)
def test_every_migration_runs_on_a_cluster(name: str) -> None:
    """Each statement names the cluster, each engine has the prefix, and settings are changed by themselves."""
    script = for_cluster(_SCRIPTS[name], prefix="Replicated", cluster="main")
    statements = Migrator.script_to_statements(script, multi_statement=True)
    assert all(statement.count(" ON CLUSTER `main`") == 1 for statement in statements)
    for statement in statements:
        assert re.search(r"(ADD|MODIFY (COLUMN|ORDER)).*MODIFY SETTING", statement, re.DOTALL) is None
    assert script.count("MODIFY SETTING") == _SCRIPTS[name].count("MODIFY SETTING")
    assert re.findall(r"\bENGINE=(\w+)", script) == [
        f"Replicated{each}" for each in re.findall(r"\bENGINE=(\w+)", _SCRIPTS[name])
    ]


@pytest.mark.parametrize("name", _SCRIPTS)
def test_without_settings_a_migration_stays_as_it_is(name: str) -> None:
    """Nothing is added for a plain server."""
    assert for_cluster(_SCRIPTS[name], prefix="", cluster=None) == _SCRIPTS[name]


def test_an_engine_with_a_prefix_keeps_it() -> None:
    """A migration of one's own may name the whole engine."""
    script = "CREATE TABLE IF NOT EXISTS t (a Int8) ENGINE=ReplicatedMergeTree('/path', 'one') ORDER BY a"
    assert for_cluster(script, prefix="Shared", cluster=None) == script
