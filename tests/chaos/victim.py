"""`python -m chaos.victim`: the worker, killed or frozen when it passes a chosen point for the n-th time."""

import signal
import sys

import click
from faust.cli.faust import cli

from chaos.defects import DEFECTS
from chaos.points import POINTS
from chaos.trap import Trap
from pipeline.rollup.store import SnapshotStore

_CHUNK_BYTES = 500  # so that a snapshot of few windows has several chunks


@click.command()
@click.option("--at", "point", type=click.Choice(list(POINTS)), help="Where the signal is sent.")
@click.option("--topic", default="", help="Of the family that counts.")
@click.option("--table", default="", help="Of the same.")
@click.option("--nth", default=1, help="Passing that counts.")
@click.option("--freeze", is_flag=True, help="SIGSTOP, not SIGKILL.")
@click.option("--defect", type=click.Choice(list(DEFECTS)), help="Break this.")
def main(*, point: str | None, topic: str, table: str, nth: int, freeze: bool, defect: str | None) -> None:
    """Run the worker once a line comes from standard input."""
    if point:
        number = signal.SIGSTOP if freeze else signal.SIGKILL
        POINTS[point].set_up(Trap(topic, table, nth, number))
    if defect:
        DEFECTS[defect]()
    defaults = SnapshotStore.__init__.__kwdefaults__ or {}
    SnapshotStore.__init__.__kwdefaults__ = defaults | {"chunk_bytes": _CHUNK_BYTES}
    sys.stdin.readline()
    sys.argv = ["faust", "-A", "pipeline", "worker"]
    cli()


if __name__ == "__main__":
    main()
