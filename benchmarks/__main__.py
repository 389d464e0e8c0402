"""`python -m benchmarks`: run the contenders one after the other, and report."""

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import report
from benchmarks.contenders import CONTENDERS, PEERS, WORKER, Contender, interpreter
from benchmarks.measure import Bench
from benchmarks.process import ContenderError
from benchmarks.registry import registry
from benchmarks.workload import FAMILY, publish
from pipeline.config import KafkaSettings, RegistrySettings, load_settings
from pipeline.devstack import Stack
from pipeline.errors import ChimeraError
from pipeline.families import load_catalog

_USUAL = [contender.name for contender in (WORKER, *PEERS)]
_DOCS = Path(__file__).parent.parent / "docs" / "benchmarks.md"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--events", default=300_000, show_default=True, type=click.IntRange(min=1), help="How many ui_events.")
@click.option(
    "--only",
    metavar="NAME",
    multiple=True,
    type=click.Choice([contender.name for contender in CONTENDERS]),
    help=f"Run this contender and others so named.  [default: {', '.join(_USUAL)}]",
)
@click.option(
    "--repeat", default=1, show_default=True, type=click.IntRange(min=1), help="Rounds; the median run counts."
)
@click.option("--write-docs", is_flag=True, help="Put the table into docs/benchmarks.md.")
def main(events: int, only: Sequence[str], repeat: int, write_docs: bool) -> None:
    """Measure the worker against its peers: one topic of ui_events, into ClickHouse, one contender at a time.

    Starts a broker and a ClickHouse server of its own, publishes the events once, and lets each contender store them in
    a database of its own. What a contender stored is checked against what was published. The last line of the output
    is a JSON object.

    \b
    Examples:
      python -m benchmarks
      python -m benchmarks --only chimera --only plain_loop --repeat 3
      python -m benchmarks --only chimera --only without_ranges --events 2000000 --repeat 5
      python -m benchmarks --write-docs

    \b
    Exit codes:
      0   every contender stored every event once
      1   one didn't
      69  a server or the peers' environment can't be had
      78  a setting is wrong
    """
    chosen = [contender for contender in CONTENDERS if contender.name in (only or _USUAL)]
    for contender in chosen:
        interpreter(contender)  # before the servers start: the first time, it is a download
    with _directory() as directory, _bench(directory, events) as (bench, progress):
        results = _rounds(bench, chosen, repeat, progress)
        machine = report.machine(bench.clickhouse_version())
    Console().print(report.rich_table(results), report.cost_of_ranges(results) or "")
    if write_docs:
        text = report.markdown(results, machine, shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
        _DOCS.write_text(report.replace_marked(_DOCS.read_text(encoding="utf-8"), text), encoding="utf-8")
    click.echo(report.json_line(results))


@contextmanager
def _directory() -> Iterator[Path]:
    """A directory for one run; kept after the failure of a contender, which names a log in it."""
    directory, keep = Path(mkdtemp(prefix="chimera-bench-")), False
    try:
        yield directory
    except ContenderError:
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(directory)


@contextmanager
def _bench(directory: Path, events: int) -> Iterator[tuple[Bench, Progress]]:
    """The servers and the filled topic."""
    with _progress() as progress, Stack(directory) as stack:
        settings = load_settings()
        family = load_catalog(settings).family(FAMILY)
        with registry(f"{family.topic.name}-value", family.schema.raw) as url:
            settings = settings.model_copy(
                update={
                    "kafka": KafkaSettings(bootstrap_servers=stack.kafka.bootstrap_servers),
                    "registry": RegistrySettings(url=url),
                }
            )
            workload = publish(settings, events, _bar(progress, "publish", events))
            yield Bench(stack, workload, url, directory), progress


def _rounds(bench: Bench, contenders: Sequence[Contender], repeat: int, progress: Progress) -> dict[str, report.Result]:
    """The median run of each contender; the rounds alternate, so that a change of the machine's mood hits all alike."""
    runs: dict[str, list[report.Result]] = {contender.name: [] for contender in contenders}
    for _ in range(repeat):
        for contender in contenders:
            bar = _bar(progress, contender.title, bench.workload.fingerprint.rows)
            runs[contender.name].append(bench.run(contender, bar))
    return {name: report.median(results) for name, results in runs.items()}


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


def _bar(progress: Progress, title: str, total: int) -> Callable[[int], None]:
    """A new line of the display; call it with what is done."""
    task = progress.add_task(title, total=total)
    return lambda done: progress.update(task, completed=done)


if __name__ == "__main__":
    try:
        main(prog_name="python -m benchmarks")
    except ChimeraError as error:
        click.echo(f"benchmarks: {error}", err=True)
        sys.exit(error.exit_code)
