"""`chimera dlq`: look at dead letters, send their records back, or drop them."""

import click

from pipeline.cli.dlq.ls import ls
from pipeline.cli.dlq.settle import drop, requeue
from pipeline.cli.dlq.show import show


@click.group()
def dlq() -> None:
    """Look at dead letters, send their records back to the topic they came from, or drop them.

    What a dead letter is, what each reason means and what can be done about it is in docs/dead_letters.md.

    \b
    Examples:
      chimera dlq ls
      chimera dlq show --reason unknown_schema --limit 3
      chimera dlq requeue --reason unknown_schema             # shows what it would do
      chimera dlq requeue --reason unknown_schema --execute
      chimera dlq drop --until 2026-11-01 --execute
    """


for command in (ls, show, requeue, drop):
    dlq.add_command(command)
