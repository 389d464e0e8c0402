"""Report of the outcomes: tables for the terminal and docs/reliability.md, and the list of failures."""

import os
import platform
from collections import Counter
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
from pipeline.rollup.audit import Kind

DOCS = Path(__file__).parents[2] / "docs" / "reliability.md"

TABLE_WIDTH = 200
"""Width limit of the tables."""

_LIBRARIES = ("chdb-core", "faust-streaming", "aiokafka", "clickhouse-driver")
_INGEST, _ROLLUP = _SECTIONS = ("chaos", "chaos of the rollup")  # names in the markers around the tables
_LISTED = 20
_WIDTH = 120


def totals(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return the sums over all faults; for faults of the rollup also those of session_stats."""
    verdicts = [outcome.verdict for outcome in outcomes]
    sums = {
        "runs": sum(outcome.runs for outcome in outcomes),
        "events": sum(verdict.events for verdict in verdicts),
        "lost": sum(len(verdict.lost) for verdict in verdicts),
        "duplicated": sum(len(verdict.duplicated) for verdict in verdicts),
    }
    if not any(map(_is_of_sessions, outcomes)):
        return sums
    kinds = Counter(difference.kind for verdict in verdicts for difference in verdict.differences)
    return {
        **sums,
        "late": sum(verdict.late for verdict in verdicts),
        "rows": sum(verdict.windows or 0 for verdict in verdicts),
        "missing": kinds[Kind.MISSING],
        "split": kinds[Kind.SPLIT],
        "different": kinds[Kind.DIFFERING] + kinds[Kind.EXTRA],
    }


def tables(outcomes: Sequence[Outcome]) -> Iterator[Table]:
    """Yield a table for ingest and a table for the rollup, as far as there are outcomes: a row per fault, and sums."""
    for section in _SECTIONS:
        if chosen := [outcome for outcome in outcomes if _section(outcome) == section]:
            yield _table(chosen)


def _is_of_sessions(outcome: Outcome) -> bool:
    return outcome.verdict.windows is not None


def _section(outcome: Outcome) -> str:
    return _ROLLUP if _is_of_sessions(outcome) else _INGEST


def _table(outcomes: Sequence[Outcome]) -> Table:
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
    """Yield a line per failure; only the first of each kind if there are many."""
    verdict = outcome.verdict
    if outcome.stuck:
        yield f"{outcome.fault}: stuck: {outcome.stuck}"
    kinds: dict[str, Sequence[object]] = {
        "lost": verdict.lost,
        "duplicated": verdict.duplicated,
        "unknown": verdict.strangers,
        "session_stats": verdict.differences,
        "chimera verify": outcome.verified,
    }
    for what, places in kinds.items():
        yield from (f"{outcome.fault}: {what}: {place}" for place in places[:_LISTED])
        if (more := len(places) - _LISTED) > 0:
            yield f"{outcome.fault}: {what}: {more} more"


def write_docs(outcomes: Sequence[Outcome], command: str) -> None:
    """Write machine, command and tables between their markers in docs/reliability.md.

    A section without outcomes is left as it is.
    """
    for section in _SECTIONS:
        if chosen := [outcome for outcome in outcomes if _section(outcome) == section]:
            _write_section(section, _table(chosen), command)


def _write_section(section: str, table: Table, command: str) -> None:
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    text = StringIO()
    Console(file=text, width=TABLE_WIDTH).print(table)
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    lines = "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())
    DOCS.write_text(f"{before}{begin}\n{_machine()}\n\n`{command}`\n\n{lines}\n{end}{after}", encoding="utf-8")


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return fill(
        f"Run on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, Kafka {KAFKA_VERSION}, {libraries}.",
        _WIDTH,
        break_on_hyphens=False,
    )
