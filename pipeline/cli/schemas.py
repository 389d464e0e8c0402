"""`chimera schemas`: check the Avro schemas, and list their fingerprints."""

import click

from pipeline.config import Settings, load_settings
from pipeline.errors import ConfigError
from pipeline.schema.compatibility import problems
from pipeline.schema.versions import Schema, load_schemas
from pipeline.validation_messages import unknown_key_message


@click.group()
def schemas() -> None:
    """Check the Avro schemas, and list their fingerprints.

    \b
    Examples:
      chimera schemas check
      chimera schemas fingerprints
    """


@schemas.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Check that schema versions are backward compatible.

    Each version must accept all records that its older versions allowed. Reads the files in
    CHIMERA_SCHEMAS__DIRECTORY; needs neither a broker nor a registry. See docs/schemas.md.

    \b
    Examples:
      chimera schemas check
      CHIMERA_SCHEMAS__DIRECTORY=proposal/avro chimera schemas check

    \b
    Exit codes:
      0   all versions are compatible
      1   a version rejects valid records of an older one: one line per field
      78  a file isn't a valid schema
    """
    families = _schemas(load_settings())
    found = problems(families)
    for problem in found:
        click.echo(str(problem), err=True)
    broken = {problem.schema.family for problem in found}
    for family, versions in families.items():
        names = ", ".join(f"v{schema.version}" for schema in versions)
        click.echo(f"{'broken' if family in broken else 'ok':6}  {family}  {names}")
    context.exit(1 if found else 0)


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
            raise ConfigError(f"{family}: {unknown_key_message(known)}")
        for schema in known[family]:
            for octets, libraries in schema.fingerprints.items():
                click.echo(f"{family:14} v{schema.version}  {octets.hex()}  {'; '.join(libraries)}")


def _schemas(settings: Settings) -> dict[str, tuple[Schema, ...]]:
    return load_schemas(settings.schemas.directory, settings.schemas.own_directory)
