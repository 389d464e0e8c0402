"""`chimera schemas`: check the Avro schemas, and list their fingerprints."""

import click

from pipeline.cli.groups import Group
from pipeline.config import load_settings
from pipeline.doctor.declared import refusals
from pipeline.errors import ConfigError
from pipeline.schema.compatibility import problems
from pipeline.schema.versions import load_schemas
from pipeline.validation_messages import unknown_key_message


@click.group(cls=Group)
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
    """Check that schema versions are backward compatible, and that the worker accepts them.

    Each version must accept all records that its older versions allowed. The newest one must fit topics.yaml, the table
    that the migrations make, and session_stats, whose definition knows certain event types. Reads the files in
    CHIMERA_SCHEMAS__DIRECTORY and topics.yaml; needs no server. See docs/schemas.md.

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
    families = load_schemas(settings.schemas.directory)
    found = problems(families)
    refused = refusals(settings)
    for problem in (*found, *refused):
        click.echo(str(problem), err=True)
    broken = {problem.schema.family for problem in found}
    for family, versions in families.items():
        names = ", ".join(f"v{schema.version}" for schema in versions)
        click.echo(f"{'broken' if family in broken else 'ok':6}  {family}  {names}")
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
    known = load_schemas(load_settings().schemas.directory)
    for family in families or sorted(known):
        if family not in known:
            raise ConfigError(f"{family}: {unknown_key_message(known, family)}")
        for schema in known[family]:
            for octets, libraries in schema.fingerprints.items():
                click.echo(f"{family:14} v{schema.version}  {octets.hex()}  {'; '.join(libraries)}")
