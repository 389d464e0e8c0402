"""The migrations create the tables of the specification and can be repeated without harm."""

import re
from pathlib import Path

import pytest

from pipeline.clickhouse.migrate import MIGRATIONS

_SPECIFICATION = (Path(__file__).parent / "specification.sql").read_text(encoding="utf-8")
_SPECIFIED = {match[1]: match[0] for match in re.finditer(r"CREATE TABLE (\w+) \([^;]+(?=;)", _SPECIFICATION)}
_SCRIPTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(MIGRATIONS.glob("*.sql"))}
_REPEATABLE = re.compile(
    r"CREATE (TABLE|FUNCTION) IF NOT EXISTS |CREATE OR REPLACE |"
    r"ALTER TABLE \w+\s+(MODIFY|(ADD|DROP) COLUMN IF (NOT )?EXISTS) "
)
_UNREPEATABLE = re.compile(r"\b(ADD|DROP) (COLUMN|INDEX|PROJECTION) (?!IF )")
_DEDUPLICATION = """SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 100000,
    replicated_deduplication_window_seconds = 604800"""


def _statements(script: str) -> list[str]:
    without_comments = re.sub(r"^--.*\n", "", script, flags=re.MULTILINE)
    return [statement.strip() for statement in without_comments.split(";") if statement.strip()]


def test_all_seven_tables_are_specified() -> None:
    """The copy of the specification is complete."""
    assert list(_SPECIFIED) == [
        "bench_runs",
        "llm_events",
        "ui_events",
        "session_stats",
        "watcher_runs",
        "episodes",
        "deployments",
    ]


@pytest.mark.parametrize("table", _SPECIFIED)
def test_a_table_is_created_word_for_word_as_specified(table: str) -> None:
    """Columns, types, defaults, engine, partition and order are as specified; only deduplication is added."""
    (script,) = [script for name, script in _SCRIPTS.items() if name.partition("_")[2] == table]
    (statement,) = _statements(script)
    expected = _SPECIFIED[table].replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")
    assert statement == f"{expected}\n{_DEDUPLICATION}"


@pytest.mark.parametrize("name", _SCRIPTS)
def test_a_migration_is_one_repeatable_statement_that_names_no_database(name: str) -> None:
    """A run after a dead one, or two at once, give the result of one run, in any configured database."""
    (statement,) = _statements(_SCRIPTS[name])
    assert _REPEATABLE.match(statement)
    assert not _UNREPEATABLE.search(statement)
    assert "chimera_metrics" not in statement


@pytest.mark.parametrize("name", [name for name, script in _SCRIPTS.items() if "ADD COLUMN" in script])
def test_an_added_column_has_a_default(name: str) -> None:
    """Workers of the version before start, and go on, between the migration and the end of a rollout."""
    (statement,) = _statements(_SCRIPTS[name])
    added = re.split(r"ADD COLUMN", statement)[1:]
    assert [column for column in added if not re.search(r" (DEFAULT|MATERIALIZED|ALIAS) ", column)] == []


def test_migrations_are_numbered_without_gaps() -> None:
    """The numbers 001, 002, … are the order of application."""
    assert [name.partition("_")[0] for name in _SCRIPTS] == [f"{number:03}" for number in range(1, len(_SCRIPTS) + 1)]
