"""The `chimera` command; each subcommand has its own module, imported when it is used."""

import logging
import sys
from importlib import import_module
from typing import Any

import click

from pipeline.cli.groups import INTERRUPTED, Group
from pipeline.errors import ChimeraError

# name -> module and object; a module is imported only when its command is used or listed
COMMANDS = {
    "stack": "pipeline.cli.stack:stack",
    "schemas": "pipeline.cli.schemas:schemas",
    "family": "pipeline.cli.family:family",
    "topics": "pipeline.cli.topics:topics",
    "migrate": "pipeline.cli.migrate:migrate",
    "produce": "pipeline.cli.produce:produce",
    "tap": "pipeline.cli.tap:tap",
    "query": "pipeline.cli.query:query",
    "monitor": "pipeline.cli.monitor:monitor",
    "status": "pipeline.cli.status:status",
    "top": "pipeline.cli.top:top",
    "verify": "pipeline.cli.verify:verify",
    "rollup": "pipeline.cli.rollup:rollup",
    "replay": "pipeline.cli.replay:replay",
    "backup": "pipeline.cli.backup:backup",
    "restore": "pipeline.cli.restore:restore",
    "dlq": "pipeline.cli.dlq:dlq",
    "storage": "pipeline.cli.storage:storage",
    "maintenance": "pipeline.cli.maintenance:maintenance",
    "access": "pipeline.cli.access:access",
    "config": "pipeline.cli.config:config",
    "doctor": "pipeline.cli.doctor:doctor",
    "asyncapi": "pipeline.cli.asyncapi:asyncapi",
    "demo": "pipeline.cli.demo:demo",
}


class LazyGroup(Group):
    """A group that imports its commands when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return the names in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module of a command."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ctrl-C ends it with an exit code that means nothing else, as 1 does of most commands."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("chimera: interrupted", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="chimera-pipeline")
def cli() -> None:
    """Kafka to ClickHouse pipeline of the Muse Protocol.

    Settings come from environment variables CHIMERA_<SECTION>__<KEY>; see README.md.

    \b
    Examples:
      chimera stack up                 # run Kafka and ClickHouse on this machine
      chimera topics apply             # create the topics of topics.yaml
      chimera migrate                  # create the tables
      faust -A pipeline worker         # run the worker
      chimera produce --sample 10000   # publish events
    """


def main() -> None:
    """Run the command; print a known failure as one line on stderr, and exit with its code."""
    from pipeline.logs import accept_any_text  # noqa: PLC0415 (slow to import, and completion needs none)

    accept_any_text()
    for name in ("clickhouse_driver", "aiokafka"):  # they log failures that we explain
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        cli(prog_name="chimera")
    except ChimeraError as error:
        click.echo(f"chimera: {error}", err=True)
        sys.exit(error.exit_code)
