"""`python -m chaos.victim`: a worker that is killed or frozen at the n-th passing of a point."""

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
@click.option("--at", "point", type=click.Choice(list(POINTS)), help="Point at which the signal is sent.")
@click.option("--topic", default="", help="Topic whose passings count.")
@click.option("--table", default="", help="Table whose passings count.")
@click.option("--nth", default=1, help="Number of the passing that triggers the signal.")
@click.option("--freeze", is_flag=True, help="Send SIGSTOP instead of SIGKILL.")
@click.option("--defect", type=click.Choice(list(DEFECTS)), help="Defect to give the worker.")
def main(*, point: str | None, topic: str, table: str, nth: int, freeze: bool, defect: str | None) -> None:
    """Run the worker after a line arrives on standard input."""
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
