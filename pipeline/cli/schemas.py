"""`chimera schemas`: check the Avro schemas, and list their fingerprints."""

from pathlib import Path

import click

from pipeline.catalog import Family, load_catalog
from pipeline.cli.groups import Group
from pipeline.cli.own_families import OwnFolder
from pipeline.clickhouse.ddl import alter_table
from pipeline.clickhouse.ddl import drop_retired as drop_statement
from pipeline.config import Settings, env_name, load_settings
from pipeline.decode.paths import version_path
from pipeline.errors import ConfigError, unknown_key_message
from pipeline.operations.doctor.declared import refusals
from pipeline.schema.compatibility import problems
from pipeline.schema.versions import Schema, load_schemas


@click.group(cls=Group)
def schemas() -> None:
    """Check the Avro schemas, list their fingerprints, and write the migration to a new version.

    \b
    Examples:
      chimera schemas check
      chimera schemas migrate orders
      chimera schemas fingerprints
    """


@schemas.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Check that schema versions are backward compatible, and that the worker accepts them.

    Each version must accept all records that its older versions allowed. The newest one must fit topics.yaml, the table
    that the migrations make, and session_stats, whose definition knows certain event types. Prints the way by which the
    records of a family are decoded: docs/types.md. Reads the files in CHIMERA_SCHEMAS__DIRECTORY and topics.yaml, and
    those of one's own; needs no server. See docs/schemas.md.

    \b
    Examples:
      chimera schemas check
      CHIMERA_SCHEMAS__DIRECTORY=proposal/avro chimera schemas check

    \b
    Exit codes:
      0   all versions are compatible, and the worker accepts them
      1   a version rejects valid records of an older one, or the worker would
          refuse to start: one line per field
      78  a file isn't a valid schema
    """
    settings = load_settings()
    families = _schemas(settings)
    found = problems(families)
    refused = refusals(settings)
    for problem in (*found, *refused):
        click.echo(str(problem), err=True)
    broken = {problem.schema.family for problem in found}
    for family, versions in families.items():
        names = ", ".join(f"v{schema.version}" for schema in versions)
        state = "broken" if family in broken else "ok"
        ways = () if family in broken else [version_path(versions, schema) for schema in versions]
        shown = f"  ({'; '.join(dict.fromkeys(ways))})" if ways else ""
        click.echo(f"{state:6}  {family}  {names}{shown}")
    context.exit(1 if found or refused else 0)


@schemas.command()
@click.argument("families", nargs=-1)
def fingerprints(families: tuple[str, ...]) -> None:
    """List the fingerprints that single-object frames may have.

    Some Avro libraries compute another fingerprint of the same schema than Avro defines; the worker accepts
    all of them. Prints family, version, the 8 bytes as they stand in a frame, and the libraries that write
    them. "with values" is a library that was given an .avsc from before `values` was renamed to `one_of`.
    Reads the files in CHIMERA_SCHEMAS__DIRECTORY.

    \b
    Examples:
      chimera schemas fingerprints
      chimera schemas fingerprints ui_events

    \b
    Exit codes:
      0   listed
      78  a file isn't a valid schema, or there is no such family
    """
    known = _schemas(load_settings())
    for family in families or sorted(known):
        if family not in known:
            raise ConfigError(f"{family}: {unknown_key_message(known, family)}")
        for schema in known[family]:
            for octets, libraries in schema.fingerprints.items():
                click.echo(f"{family:14} v{schema.version}  {octets.hex()}  {'; '.join(libraries)}")


@schemas.command("migrate")
@click.argument("family")
@click.option(
    "--from", "older", type=click.IntRange(min=1), metavar="N", help="Older version.  [default: the last but one]"
)
@click.option("--drop-retired", is_flag=True, help="Drop the columns of fields that the newest version lacks.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Folder of migrations to write to.")
@click.option("--print", "printed", is_flag=True, help="Print the statement, and write no file.")
def write_migration(family: str, older: int | None, *, drop_retired: bool, folder: Path | None, printed: bool) -> None:
    """Write the migration from one version of a family's schema to the newest.

    Compares two .avsc files. An added field becomes a column with a default, so that workers of the older version
    run on and can restart. The column of a retired field stays, with a default, until --drop-retired: run that
    when no older worker is left. Read the file before `chimera migrate`. Needs no server. See docs/evolution.md.

    \b
    Examples:
      chimera schemas migrate orders
      chimera schemas migrate orders --from 1 --print
      chimera schemas migrate orders --drop-retired

    \b
    Exit codes:
      0   written, or the table needs no change
      1   the newest version rejects valid records of an older one: one line per field
      78  a setting or a file is wrong, or there is no such family or version
    """
    settings = load_settings()
    owner = load_catalog(settings).family(family)
    if found := problems({family: owner.schemas}):
        for problem in found:
            click.echo(str(problem), err=True)
        click.echo(_WAY_OUT, err=True)
        click.get_current_context().exit(1)
    newest, former = owner.schema, _former(owner, older)
    made = drop_statement(owner.schemas, owner.table) if drop_retired else alter_table(former, newest, owner.table)
    if not made:
        click.echo(f"{owner.table}: no change: its columns hold what {newest.file.name} allows")
    elif printed:
        click.echo(made, nl=False)
    else:
        place = _place(settings, folder)
        what = f"{family}_v{newest.version}{'_drop' if drop_retired else ''}"
        click.echo(f"wrote  {_written(place, what, made)}\nRead it, then run `chimera migrate`.")


_WAY_OUT = (
    "The table can't follow. Keep the field as it is, and add another one beside it; or make a family of its own "
    "for the new form: docs/evolution.md."
)


def _former(owner: Family, older: int | None) -> Schema:
    """Return the version to start from."""
    version = owner.schema.version - 1 if older is None else older
    for schema in owner.schemas[:-1]:
        if schema.version == version:
            return schema
    if not owner.schemas[:-1]:
        raise ConfigError(
            f"{owner.name}: {owner.schema.file.name} is its only version; expected a newer one beside it: copy the "
            "file, raise the number in its name, and change it"
        )
    known = ", ".join(str(schema.version) for schema in owner.schemas[:-1])
    raise ConfigError(f"{owner.name}: no version {version} before {owner.schema.file.name}; there are {known}")


def _place(settings: Settings, folder: Path | None) -> OwnFolder:
    own = OwnFolder.configured(settings)
    if folder is not None:
        return OwnFolder.at(folder.parent)._replace(migrations=folder)
    if own is None:
        raise ConfigError(
            f"{env_name('clickhouse', 'migrations')}: expected a folder of migrations of one's own; or use --folder"
        )
    return own


def _written(place: OwnFolder, what: str, statement: str) -> Path:
    """Write a migration, unless one says the same already."""
    place.migrations.mkdir(parents=True, exist_ok=True)
    for file in sorted(place.migrations.glob(f"*_{what}.sql")):
        if file.read_text(encoding="utf-8") == statement:
            return file
    file = place.next_migration(what)
    file.write_text(statement, encoding="utf-8")
    return file


def _schemas(settings: Settings) -> dict[str, tuple[Schema, ...]]:
    return load_schemas(settings.schemas.directory, settings.schemas.own_directory)
