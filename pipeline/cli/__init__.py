"""The `chimera` command: one module a verb, loaded when it is called."""

import logging
import sys
from importlib import import_module

import click

from pipeline.errors import ChimeraError

# verb -> module and object; a module is imported only when its verb is used or listed
COMMANDS = {
    "stack": "pipeline.cli.stack:stack",
    "schemas": "pipeline.cli.schemas:schemas",
    "topics": "pipeline.cli.topics:topics",
    "migrate": "pipeline.cli.migrate:migrate",
    "produce": "pipeline.cli.produce:produce",
    "rollup": "pipeline.cli.rollup:rollup",
    "dlq": "pipeline.cli.dlq:dlq",
    "access": "pipeline.cli.access:access",
    "config": "pipeline.cli.config:config",
    "demo": "pipeline.cli.demo:demo",
}


class LazyGroup(click.Group):
    """A group that knows its verbs by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Verbs in the order a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the verb's module."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="chimera-pipeline")
def cli() -> None:
    """Kafka to ClickHouse pipeline of the Muse Protocol.

    Settings come from environment variables CHIMERA_<SECTION>__<KEY>; see README.md.

    \b
    Examples:
      chimera stack up                 # a real broker and a real ClickHouse on this machine
      chimera topics apply             # create the topics of topics.yaml
      chimera migrate                  # create the tables
      faust -A pipeline worker         # run the worker
      chimera produce --sample 10000   # publish events
    """


def main() -> None:
    """Run the command; an explained failure is one line on stderr and its own exit code."""
    logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL)  # it logs a traceback of what we explain
    try:
        cli(prog_name="chimera")
    except ChimeraError as error:
        click.echo(f"chimera: {error}", err=True)
        sys.exit(error.exit_code)
