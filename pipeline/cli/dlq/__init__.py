"""`chimera dlq`: list, show, requeue and drop dead letters."""

import click

from pipeline.cli.dlq.ls import ls
from pipeline.cli.dlq.settle import drop, requeue
from pipeline.cli.dlq.show import show
from pipeline.cli.groups import Group


@click.group(cls=Group)
def dlq() -> None:
    """List, show, requeue and drop dead letters.

    docs/dead_letters.md explains dead letters, the meaning of each reason, and what to do about it.

    \b
    Examples:
      chimera dlq ls
      chimera dlq show --reason unknown_schema --limit 3
      chimera dlq requeue --reason unknown_schema             # shows the plan
      chimera dlq requeue --reason unknown_schema --execute
      chimera dlq drop --until 2026-11-01 --execute
    """


for command in (ls, show, requeue, drop):
    dlq.add_command(command)
