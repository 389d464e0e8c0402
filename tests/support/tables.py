"""Tables as `migrate` makes them, for tests that need them and don't test the migrations: at a quarter of the CPU."""

from typing import Any, NamedTuple

from pipeline.clickhouse.client import connect
from pipeline.clickhouse.migrate import MIGRATIONS, migrate
from pipeline.config import ClickHouseSettings

_OWN = "test_"  # prefix of the databases that the fixture `environ` names


class _Database(NamedTuple):
    """A database that `migrate` has made from nothing."""

    name: str
    statements: list[str]
    """Its CREATE statements, with full names of the tables."""
    versions: list[tuple[Any, ...]]
    """Rows of its schema_versions."""


_made: dict[str, _Database] = {}  # by address of the server


def create_tables(settings: ClickHouseSettings) -> None:
    """Do what `migrate` does. An empty database gets the tables by the statements that the server shows for another."""
    made = _made.get(settings.address)
    if made and settings.database.startswith(_OWN):
        with connect(settings, database="") as client:
            _copy(client, made, settings.database)
    applied = migrate(settings)
    if settings.database.startswith(_OWN) and len(applied) == len(list(MIGRATIONS.glob("*.sql"))):
        _made[settings.address] = _read(settings)


def _copy(client: Any, made: _Database, database: str) -> None:
    if client.execute("SELECT 1 FROM system.databases WHERE name = %(name)s", {"name": database}):
        return
    client.execute(f"CREATE DATABASE {database}")
    for statement in made.statements:
        client.execute(statement.replace(made.name, database))
    client.execute(f"INSERT INTO {database}.schema_versions VALUES", made.versions)


def _read(settings: ClickHouseSettings) -> _Database:
    with connect(settings) as client:
        query = "SELECT create_table_query FROM system.tables WHERE database = %(name)s"
        statements = [text for (text,) in client.execute(query, {"name": settings.database})]
        return _Database(settings.database, statements, client.execute("SELECT * FROM schema_versions"))
