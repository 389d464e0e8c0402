"""`chimera asyncapi`: print the AsyncAPI document of all topics."""

import click
import orjson

from pipeline.catalog import load_catalog
from pipeline.cli.asyncapi_document import as_yaml, document
from pipeline.config import load_settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of YAML.")
def asyncapi(as_json: bool) -> None:
    """Print the AsyncAPI document of all topics.

    It is made from topics.yaml and the .avsc files, and follows AsyncAPI 3.0.0. docs/asyncapi.yaml is the document of
    the files in this repository. Connects to nothing.

    \b
    Exit codes:
      0   the document is printed
      78  a setting, topics.yaml or a schema is wrong

    \b
    Examples:
      chimera asyncapi > docs/asyncapi.yaml
      chimera asyncapi --json | jq '.channels | keys'
    """
    described = document(load_catalog(load_settings()))
    click.echo(orjson.dumps(described) if as_json else as_yaml(described), nl=as_json)
