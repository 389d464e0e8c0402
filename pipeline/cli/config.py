"""`chimera config`: show the settings and their sources."""

from typing import Any

import click
import orjson
from pydantic import SecretStr
from rich.table import Table

from pipeline.cli.groups import Group
from pipeline.cli.terminal import terminal
from pipeline.config import ENV_PREFIX, by_env_name, load_settings
from pipeline.forms import set_names

_MASK = "********"


@click.group(cls=Group)
def config() -> None:
    """Show the settings and their sources.

    \b
    Examples:
      chimera config show
    """


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with value and source of each variable.")
def show(as_json: bool) -> None:
    """Show every setting with its value and source.

    The source is the default, the environment or a file in the folder that CHIMERA_SECRETS_DIR names. Secrets are
    masked: only whether they are set is shown. Connects to nothing.

    \b
    Exit codes:
      0   all settings are valid
      78  a setting is wrong

    \b
    Examples:
      chimera config show
      chimera config show --json | jq 'map_values(select(.source == "environment"))'
    """
    ours = {name.upper(): source for name, source in set_names(ENV_PREFIX).items()}
    rows = {
        name: {"value": _shown(value), "source": ours.get(name, "default")}
        for name, value in by_env_name(load_settings()).items()
    }
    if as_json:
        click.echo(orjson.dumps(rows))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("source", no_wrap=True)
    for name, row in rows.items():
        value = "" if row["value"] is None else str(row["value"])
        table.add_row(name, value, str(row["source"]), style="bold" if name in ours else None)
    terminal().print(table, markup=False)


def _shown(value: Any) -> str | float | None:
    """Return a value that may be shown to anybody: secrets are masked."""
    if isinstance(value, SecretStr):
        return _MASK if value.get_secret_value() else None
    return value if value is None or isinstance(value, int | float) else str(value)
