"""`chimera family`: begin a new event family, and check everything that the worker will demand of one."""

import json
from pathlib import Path
from typing import IO, Any

import click

from pipeline.catalog import Catalog, Family, load_catalog
from pipeline.cli.groups import Group
from pipeline.cli.own_families import OwnFolder, read_examples, schema_text, topic_text
from pipeline.clickhouse.column_types import column_type
from pipeline.clickhouse.ddl import create_table
from pipeline.config import Settings, load_settings
from pipeline.decode.paths import field_path, version_path
from pipeline.errors import ConfigError
from pipeline.schema.infer import Draft, draft
from pipeline.schema.versions import FILE_NAME, load_schema
from pipeline.worker.demands import demands

_TOPICS_HEAD = "# Topics of one's own; docs/configuration.md describes the keys.\nversion: 1\ntopics:\n"


@click.group(cls=Group)
def family() -> None:
    """Begin a new event family, and check one before anything is published.

    \b
    Examples:
      chimera family new orders --from order.json
      chimera family check orders
    """


@family.command()
@click.argument("name")
@click.option(
    "--from", "source", type=click.File("rb"), metavar="FILE", help="File with one JSON event; - is standard input."
)
@click.option("--key", metavar="FIELD", help="Field with the UUID that keys the records.  [default: the first UUID]")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("families"),
    show_default=True,
    help="Folder for the files, unless settings name one.",
)
def new(name: str, source: IO[bytes] | None, key: str | None, folder: Path) -> None:
    """Begin a new event family: schema, table, topic and an example event.

    Types and bounds are guesses from the event; without --from the family has an id, a type and a value. Read
    the files and change them until `chimera family check` is content. Nothing on a server is changed. No code is
    needed: see docs/evolution.md.

    \b
    Examples:
      chimera family new orders
      chimera family new orders --from order.json --key order_id
      echo '{"order_id": "6d9a30c2-15fe-4b7d-a2c8-0e74b95f1d36", "total": 9.5}' | chimera family new orders --from -

    \b
    Exit codes:
      0   the files are written
      78  the name is taken or wrong, a value of the event has no column, or a
          setting is wrong
    """
    settings = load_settings()
    configured = OwnFolder.configured(settings)
    place = configured or OwnFolder.at(folder.absolute())
    try:
        _check_name(settings, place, name)
        made = draft(name, _event(source), key)
        for path in _write(place, name, made):
            click.echo(f"wrote  {path}")
        if not configured:
            env = place.topics.parent / "env"
            env.write_text("".join(f"export {variable}='{path}'\n" for variable, path in place.environment.items()))
            click.echo(f"wrote  {env}\nNow run:  . {env}")
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; expected a folder that takes the files") from None
    click.echo(f"Then:     chimera family check {name} --offline, and correct the schema and the table")
    click.echo(f"Then:     chimera topics apply && chimera migrate && chimera family check {name}")


def _check_name(settings: Settings, place: OwnFolder, name: str) -> None:
    if not FILE_NAME.match(f"{name}.v1.avsc"):
        raise ConfigError(f"{name}: expected a name of small letters, digits and _, that begins with a letter")
    if (place.schemas / f"{name}.v1.avsc").exists():
        raise ConfigError(f"{place.schemas / name}.v1.avsc: expected a new name, because this family is there")
    if any(name in {known.name, known.table} for known in _known(settings, place)):
        raise ConfigError(f"{name}: expected a new name, because this family is there")


def _known(settings: Settings, place: OwnFolder) -> tuple[Family, ...]:
    """Return the families that are there; none of one's own if there is no such file yet."""
    if not place.topics.exists():
        topics = settings.topics.model_copy(update={"own_file": None})
        schemas = settings.schemas.model_copy(update={"own_directory": None})
        settings = settings.model_copy(update={"topics": topics, "schemas": schemas})
    return load_catalog(settings).families


def _event(source: IO[bytes] | None) -> dict[str, Any] | None:
    if source is None:
        return None
    try:
        event = json.loads(source.read())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source.name}: expected one JSON event: {error}") from None
    if not isinstance(event, dict):
        raise ConfigError(f"{source.name}: expected an object of fields")
    return event


def _write(place: OwnFolder, name: str, made: Draft) -> list[Path]:
    """Write the files of a new family; return their paths."""
    for folder in (place.schemas, place.migrations, place.examples):
        folder.mkdir(parents=True, exist_ok=True)
    schema = place.schemas / f"{name}.v1.avsc"
    schema.write_text(schema_text(made.schema), encoding="utf-8")
    migration = place.next_migration(name)
    migration.write_text(create_table(load_schema(schema), name, made.key), encoding="utf-8")
    example = place.examples / f"{name}.jsonl"
    example.write_text(json.dumps(made.example, ensure_ascii=False) + "\n", encoding="utf-8")
    topics = place.topics.read_text(encoding="utf-8") if place.topics.exists() else _TOPICS_HEAD
    place.topics.write_text(topics + topic_text(name, made.key), encoding="utf-8")
    return [schema, migration, place.topics, example]


@family.command()
@click.argument("name")
@click.option("--offline", is_flag=True, help="Leave out the checks that ask Kafka or ClickHouse.")
@click.pass_context
def check(context: click.Context, name: str, *, offline: bool) -> None:
    """Check everything that the worker will demand of a family, before anything is published.

    Prints each field with its column and the way by which it is decoded, then each check. Nothing is changed.

    \b
    Examples:
      chimera family check orders
      chimera family check orders --offline

    \b
    Exit codes:
      0   the worker will take its records
      1   something is missing: one line each
      78  a setting, topics.yaml or a schema is wrong, or there is no such family
    """
    settings = load_settings()
    catalog = load_catalog(settings)
    checked = catalog.family(name)
    _print_fields(checked)
    examples = _examples(settings, catalog, name)
    missing = set[str]()
    for finding in demands(settings, checked, examples, offline=offline):
        said = "as above" if finding.problem in missing else finding.problem
        click.echo(f"{'missing' if said else 'ok':8}{finding.what}{': ' * bool(said)}{said}")
        missing |= {finding.problem} - {""}
    context.exit(1 if missing else 0)


def _examples(settings: Settings, catalog: Catalog, name: str) -> list[dict[str, Any]]:
    folder = OwnFolder.configured(settings)
    own = folder is not None and folder.examples.exists()
    return read_examples(folder.examples, catalog.family(name).name) if own and folder else []


def _print_fields(checked: Family) -> None:
    click.echo(f"{checked.name}: {checked.topic.name} -> {checked.table}, key {checked.key}")
    rows = [(field.name, column_type(field), field_path(field)) for field in checked.schema.fields]
    widths = [max(len(row[at]) for row in rows) for at in range(2)]
    for name, column, way in rows:
        click.echo(f"  {name:{widths[0]}}  {column:{widths[1]}}  {way}")
    for schema in checked.schemas:
        click.echo(f"  records of v{schema.version}: {version_path(checked.schemas, schema)}")
