"""`chimera schemas`: look after the Avro schemas."""

import click

from pipeline.config import load_settings
from pipeline.schema.compatibility import problems
from pipeline.schema.versions import load_schemas


@click.group()
def schemas() -> None:
    """Look after the Avro schemas."""


@schemas.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Check that each version of a schema takes all records that its older versions allowed.

    Reads the files in CHIMERA_SCHEMAS__DIRECTORY; needs neither broker nor registry. See docs/schemas.md.

    \b
    Examples:
      chimera schemas check
      CHIMERA_SCHEMAS__DIRECTORY=proposal/avro chimera schemas check

    \b
    Exit codes:
      0   all versions go together
      1   one would reject valid records: a line for each file and field
      78  a file is no schema
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
