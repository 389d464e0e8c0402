"""`chimera schemas`: check the Avro schemas."""

import click

from pipeline.config import load_settings
from pipeline.schema.compatibility import problems
from pipeline.schema.versions import load_schemas


@click.group()
def schemas() -> None:
    """Check the Avro schemas.

    \b
    Examples:
      chimera schemas check
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
    families = load_schemas(load_settings().schemas.directory)
    found = problems(families)
    for problem in found:
        click.echo(str(problem), err=True)
    broken = {problem.schema.family for problem in found}
    for family, versions in families.items():
        names = ", ".join(f"v{schema.version}" for schema in versions)
        click.echo(f"{'broken' if family in broken else 'ok':6}  {family}  {names}")
    context.exit(1 if found else 0)
