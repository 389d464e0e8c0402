"""Migrations: create or change the tables that this version writes, or list the changes that are pending.

A migration is a file `migrations/<NNN>_<what>.sql` with one statement. The statement can be repeated without harm,
because ClickHouse has no transactional DDL. So a run that died between a statement and its entry in `schema_versions`,
or two hosts that migrate at once, give the same result as one run. An applied file is never edited; a change is a new
file. Files name no database: it comes from the settings. A folder of one's own, which a setting names, has files
`<NNNN>_<what>.sql` with numbers from 1000 on; they are applied after those of this version.

Each table remembers the deduplication tokens of its last 400,000 blocks, ui_events of 800,000. On replicated engines it
remembers them for 7 days, which is how long topics keep records. A token must outlive the inserts between an insert and
its repetition, which waits for the session timeout if a worker was killed: see `pipeline.clickhouse.deduplication`.
An outage of ClickHouse stops all inserts, but not the clock. Plain and replicated MergeTree accept each other's
settings and use their own. A plain table without its window remembers nothing. A table that remembers as many blocks
already keeps its window: its migration is noted as applied, and isn't run.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from clickhouse_migrations.exceptions import MigrationException
from clickhouse_migrations.migration import MigrationStorage
from clickhouse_migrations.migrator import STATUS_MD5_MISMATCH, STATUS_PENDING, STATUS_UNKNOWN, Migrator

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.kept_windows import kept_windows
from pipeline.clickhouse.lookups import all_rows, named_rows
from pipeline.clickhouse.pinned_settings import INSERT_SETTINGS
from pipeline.clickhouse.replicas import execute_everywhere, for_cluster
from pipeline.config import ClickHouseSettings, env_name
from pipeline.errors import ConfigError, HaltError

MIGRATIONS = Path(__file__).parent / "migrations"
FIRST_OWN = 1000
"""Least number of a migration of one's own."""

_INITIALISED = "SELECT count() FROM system.tables WHERE database = %(database)s AND name = 'schema_versions'"
_FILE_NAME = re.compile(r"[0-9]{3}_[a-z0-9_]+\.sql")
_OWN_FILE_NAME = re.compile(r"[1-9][0-9]{3}_[a-z0-9_]+\.sql")


def pending(settings: ClickHouseSettings, directory: Path = MIGRATIONS) -> tuple[Path, ...]:
    """Return the files that `migrate` would apply, in order. Nothing is changed, and the database may be missing.

    Raises:
        ConfigError: a file is misnamed, isn't one statement, or was edited after it was applied.
        HaltError: the server refuses the login, or a newer version has migrated the database.
        UnavailableError: the server doesn't answer.
    """
    scripts = _Scripts.read(settings, directory)
    files = scripts.files
    with _explained(settings, directory):
        rows = _status(settings, scripts.migrations)
    if rows is None:
        return tuple(files[version] for version in sorted(files))
    for row in rows:
        if row.state == STATUS_MD5_MISMATCH:
            raise ConfigError(
                f"{files[row.version]}: edited after it was applied to database {settings.database!r}; "
                "expected the file unchanged, and the change in a new migration"
            )
        if row.state == STATUS_UNKNOWN:
            why = "a newer version of chimera has migrated the database; use that version"
            if row.version >= FIRST_OWN:
                why = f"it is one of your own; expected {env_name('clickhouse', 'migrations')} to name its folder"
            raise HaltError(
                f"database {settings.database!r} at {settings.address} has migration {row.version}, which is not in "
                f"{settings.migrations if settings.migrations and row.version >= FIRST_OWN else directory}: {why}"
            )
    return tuple(files[row.version] for row in rows if row.state == STATUS_PENDING)


def migrate(settings: ClickHouseSettings, directory: Path = MIGRATIONS) -> tuple[Path, ...]:
    """Create the database if it is missing, and apply the pending migrations; return their files, in order.

    Those of `kept` are noted as applied instead. All servers of a cluster must be there.

    Raises:
        ConfigError: a file is misnamed, isn't one statement, or was edited after it was applied; nothing was changed.
        HaltError: the server refuses the login or a statement, or a newer version has migrated the database.
        UnavailableError: the server doesn't answer, or another one of the cluster is away.
    """
    planned = pending(settings, directory)
    if planned:
        names = {path.name for path in kept(settings, planned)}
        with _explained(settings, directory):
            scripts = _Scripts.read(settings, directory)
            versions = {version for version, path in scripts.files.items() if path.name in names}
            with connect(settings, database="") as client:
                on_cluster = f" ON CLUSTER `{settings.cluster}`" if settings.cluster else ""
                _Connection(client).command(f"CREATE DATABASE IF NOT EXISTS `{settings.database}`{on_cluster}")
            with connect(settings) as client:
                # The library's own path in Keeper has no {uuid}: a restored copy would be a replica of the original.
                engine = "ReplicatedMergeTree" if settings.cluster else None
                migrator = Migrator(_Connection(client), migrations_table_engine=engine)
                migrator.init_schema(settings.cluster)
                noted = [migration for migration in scripts.migrations if migration.version in versions]
                migrator.apply_migration(noted, multi_statement=True, fake=True)
                migrator.apply_migration(scripts.migrations, multi_statement=True)
    return planned


def kept(settings: ClickHouseSettings, planned: Iterable[Path]) -> tuple[Path, ...]:
    """Return the pending migrations that would leave a table's deduplication window as it is, or narrow it.

    Args:
        settings: server and database.
        planned: as `pending` gives them.

    Raises:
        HaltError: the server refuses the login.
        UnavailableError: the server doesn't answer.
    """
    with explained(settings), connect(settings, database="") as client:
        return kept_windows(client, settings.database, planned)


class _Scripts(NamedTuple):
    """All migrations: those of this version, and those of one's own."""

    files: Mapping[int, Path]
    """Number of a migration to its file."""
    migrations: Sequence[Any]
    """As the library's storage gives them."""

    @classmethod
    def read(cls, settings: ClickHouseSettings, directory: Path) -> "_Scripts":
        """Read and check the files.

        Raises:
            ConfigError: a file is misnamed or isn't one statement, or the folder is missing.
        """
        _check_files(directory, _FILE_NAME, "<NNN>_<what>.sql, with three digits")
        folders = [directory]
        if settings.migrations is not None:
            _check_files(settings.migrations, _OWN_FILE_NAME, f"<NNNN>_<what>.sql, with a number from {FIRST_OWN} on")
            folders.append(settings.migrations)
        with _explained(settings, folders[-1]):
            storages = [MigrationStorage(folder) for folder in folders]
            return cls(
                {
                    version: storage.storage_dir / name
                    for storage in storages
                    for version, name in storage.migration_filenames().items()
                },
                [
                    migration._replace(
                        script=for_cluster(migration.script, prefix=settings.engine_prefix, cluster=settings.cluster)
                    )
                    for storage in storages
                    for migration in storage.migrations()
                ],
            )


def _check_files(directory: Path, form: re.Pattern[str], expected: str) -> None:
    """Check names and statement counts. One statement per file: without transactions, a run could end between two."""
    try:
        for path in sorted(directory.glob("*.sql")):
            if not form.fullmatch(path.name):
                raise ConfigError(f"{path}: expected a name of the form {expected}")
            if (count := _count_statements(path)) != 1:
                raise ConfigError(f"{path}: expected one statement, got {count}")
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; expected a folder of files that can be read") from None


def _count_statements(path: Path) -> int:
    try:
        return len(Migrator.script_to_statements(path.read_text(encoding="utf-8"), multi_statement=True))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error.reason}") from None


class _Connection:
    """A connection for the library's `Migrator`: our settings, and whole answers or a failure."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def command(self, statement: str) -> None:
        """Run a statement without rows; see `execute_everywhere`."""
        execute_everywhere(self._client, statement)

    def query(self, statement: str) -> list[dict[str, Any]]:
        """Return the rows of a SELECT, by the names of its columns."""
        rows, columns = named_rows(self._client, statement)
        return [dict(zip((name for name, _ in columns), row, strict=True)) for row in rows]

    def insert(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Insert rows that have the same columns."""
        names = ", ".join(rows[0])
        self._client.execute(f"INSERT INTO {table} ({names}) VALUES", rows, settings=dict(INSERT_SETTINGS))


def _status(settings: ClickHouseSettings, migrations: Sequence[Any]) -> list[Any] | None:
    """Return the library's rows of status; None if no migration was ever applied."""
    with connect(settings, database="") as client:
        ((initialised,),) = all_rows(client, _INITIALISED, {"database": settings.database})
    if not initialised:
        return None
    with connect(settings) as client:
        status: list[Any] = Migrator(_Connection(client)).migration_status(migrations)
    return status


@contextmanager
def _explained(settings: ClickHouseSettings, directory: Path) -> Iterator[None]:
    try:
        with explained(settings):
            yield
    except MigrationException as error:
        raise ConfigError(f"{directory}: {error}") from error
