"""`python -m chaos`: run all faults and report lost and duplicated records."""

import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from chaos import faults as ingest
from chaos import groups, lineage, overload, report, rollup, tables, transactions
from chaos.faults import Fault
from chaos.suite import Outcome, inflict
from pipeline.devstack import Stack
from pipeline.devstack.memory_files import memory_directory

_NEIGHBOURS = tables.FAULTS + lineage.FAULTS + overload.FAULTS + transactions.FAULTS + groups.FAULTS
_FAULTS = ingest.FAULTS + _NEIGHBOURS + rollup.FAULTS


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--share", default=1.0, show_default=True, type=click.FloatRange(0.01, 10), help="Share of the runs of each fault."
)
@click.option("--seed", default=1, show_default=True, help="Random seed of events, passings and pauses.")
@click.option(
    "--only", metavar="TEXT", multiple=True, help="Only faults with this text in their name; may be repeated."
)
@click.option("--write-docs", is_flag=True, help="Also write the tables into docs/reliability.md.")
def main(share: float, seed: int, only: tuple[str, ...], write_docs: bool) -> None:
    """Run every fault under load, and compare stored with produced records, one by one.

    Standard output gets the tables and, as its last line, one JSON object; standard error gets the progress. If records
    are lost or duplicated, the logs are kept, and the last line of the progress names their directory.

    \b
    Examples:
      python -m chaos                          all runs, an hour or more
      python -m chaos --share 0.1              a tenth of the runs of each fault
      python -m chaos --only rollup --seed 7

    \b
    Exit codes:
      0  every record is in its place once
      1  records are lost or duplicated, or the pipeline got stuck
    """
    faults = [fault for fault in _FAULTS if not only or any(text in fault.name for text in only)]
    if not faults:
        raise click.UsageError(f"--only: expected a part of one of: {', '.join(fault.name for fault in _FAULTS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no worker is left behind
    directory = Path(mkdtemp(prefix="chimera-chaos-"))
    outcomes = list(_inflict_all([(fault, max(1, round(fault.runs * share))) for fault in faults], seed, directory))
    for table in report.tables(outcomes):
        Console(width=report.TABLE_WIDTH).print(table)
    for outcome in outcomes:
        for line in report.failures(outcome):
            click.echo(line)
    if write_docs:
        report.write_docs(outcomes, shlex.join(["python", "-m", "chaos", *sys.argv[1:]]))
    sound = all(outcome.sound for outcome in outcomes)
    if sound:
        shutil.rmtree(directory)
    else:
        click.echo(f"logs: {directory}", err=True)
    click.echo(orjson.dumps(report.totals(outcomes)))
    sys.exit(0 if sound else 1)


def _inflict_all(faults: Sequence[tuple[Fault, int]], seed: int, directory: Path) -> Iterator[Outcome]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    servers = TemporaryDirectory(prefix="chimera-chaos-", dir=memory_directory(), ignore_cleanup_errors=True)
    with Progress(*columns, console=Console(stderr=True)) as progress, servers as place, Stack(Path(place)) as stack:
        task = progress.add_task("", total=sum(runs for _, runs in faults))
        try:
            for fault, runs in faults:
                progress.update(task, description=fault.name)
                outcome = inflict(
                    fault, runs, seed, stack=stack, directory=directory, advance=lambda: progress.advance(task)
                )
                progress.console.print(f"{fault.name}: {'passed' if outcome.sound else 'FAILED'}")
                yield outcome
        finally:
            for server in stack.servers:
                if server.log_file.exists():
                    shutil.copy(server.log_file, directory / f"{server.directory.name}.log")


if __name__ == "__main__":
    main()
