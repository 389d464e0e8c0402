"""How the outcomes are told: a table, the same in the terminal and in docs/reliability.md, and what went wrong."""

import os
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from textwrap import fill

import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from chaos.suite import Outcome
from pipeline.devstack.jars import KAFKA_VERSION

DOCS = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"

_LIBRARIES = ("chdb-core", "faust-streaming", "aiokafka", "clickhouse-driver")
_LISTED = 20
_WIDTH = 120


def totals(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Sums over all faults."""
    return {
        "runs": sum(outcome.runs for outcome in outcomes),
        "events": sum(outcome.verdict.events for outcome in outcomes),
        "lost": sum(len(outcome.verdict.lost) for outcome in outcomes),
        "duplicated": sum(len(outcome.verdict.duplicated) for outcome in outcomes),
    }


def table(outcomes: Sequence[Outcome]) -> Table:
    """A row for each fault, and the sums."""
    sums = totals(outcomes)
    table = Table(box=box.MARKDOWN)
    table.add_column("fault", no_wrap=True)
    for heading in sums:
        table.add_column(heading, justify="right")
    for outcome in outcomes:
        name = f"{outcome.fault} (stuck)" if outcome.stuck else outcome.fault
        table.add_row(name, *(f"{number:,}" for number in totals([outcome]).values()))
    table.add_row("all", *(f"{number:,}" for number in sums.values()))
    return table


def failures(outcome: Outcome) -> Iterator[str]:
    """What went wrong, record by record; of many of a kind, the first."""
    verdict = outcome.verdict
    if outcome.stuck:
        yield f"{outcome.fault}: stuck: {outcome.stuck}"
    for what, places in (("lost", verdict.lost), ("duplicated", verdict.duplicated), ("unknown", verdict.strangers)):
        yield from (f"{outcome.fault}: {what}: {place}" for place in places[:_LISTED])
        if (more := len(places) - _LISTED) > 0:
            yield f"{outcome.fault}: {what}: {more} more"


def write_docs(outcomes: Sequence[Outcome], command: str) -> None:
    """Put machine, command and table between the marks in docs/reliability.md."""
    text = StringIO()
    Console(file=text, width=_WIDTH).print(table(outcomes))
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())
    DOCS.write_text(f"{before}{BEGIN}\n{_machine()}\n\n`{command}`\n\n{lines}\n{END}{after}", encoding="utf-8")


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return fill(
        f"Run on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, Kafka {KAFKA_VERSION}, {libraries}.",
        _WIDTH,
        break_on_hyphens=False,
    )
