"""Results of the benchmark, as a table in the terminal, a table in docs/benchmarks.md and a line of JSON."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from textwrap import fill

import orjson
import psutil
from rich.table import Table

from benchmarks.contenders import CONTENDERS, PEER_REQUIREMENTS, PEERS, WITHOUT_RANGES, WORKER
from pipeline.devstack.jars import KAFKA_VERSION
from pipeline.errors import ConfigError

BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"

_TITLES = {contender.name: contender.title for contender in CONTENDERS}
_HEADINGS = ("", "rows/s", "ratio", "CPU µs", "server µs", "RSS MB", "total s")
_LINE_WIDTH = 120
_LIBRARIES = ("faust-streaming", "aiokafka", "confluent-kafka", "fastavro", "clickhouse-driver", "numpy", "uvloop")


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one contender."""

    name: str
    rows: int
    seconds: float
    """Time from the first poll to the last row."""
    total_seconds: float
    """Time from the start of the process to the last row."""
    server_cpu_seconds: float
    """CPU time of ClickHouse during `seconds`, for inserts and all its other work."""
    cpu_seconds: float | None
    """CPU time of the contender's processes during `seconds`; None if ClickHouse does the work."""
    peak_rss_bytes: int | None

    @property
    def rows_per_s(self) -> float:
        """Throughput in rows per second."""
        return self.rows / self.seconds

    @property
    def cpu_us_per_row(self) -> float | None:
        """CPU time of the contender for one row, in µs."""
        return None if self.cpu_seconds is None else self.cpu_seconds / self.rows * 1e6

    @property
    def server_cpu_us_per_row(self) -> float:
        """CPU time of ClickHouse for one row, in µs."""
        return self.server_cpu_seconds / self.rows * 1e6

    @property
    def rss_mb(self) -> float | None:
        """Peak memory of the contender's processes, in 10^6 bytes."""
        return None if self.peak_rss_bytes is None else self.peak_rss_bytes / 1e6


def median(runs: Sequence[Result]) -> Result:
    """Return the median run by throughput, the slower one of two; so all figures are of one run."""
    return sorted(runs, key=lambda run: run.rows_per_s)[(len(runs) - 1) // 2]


def ratios(results: Mapping[str, Result]) -> dict[str, float]:
    """Ratio of the worker's throughput to that of each peer that ran."""
    if WORKER.name not in results:
        return {}
    worker = results[WORKER.name].rows_per_s
    return {peer.name: round(worker / results[peer.name].rows_per_s, 2) for peer in PEERS if peer.name in results}


def cost_of_ranges(results: Mapping[str, Result]) -> str | None:
    """Sentence with the cost of committed ranges in throughput; None if one of the two contenders didn't run."""
    if not {WORKER.name, WITHOUT_RANGES.name} <= results.keys():
        return None
    share = 1 - results[WORKER.name].rows_per_s / results[WITHOUT_RANGES.name].rows_per_s
    return f"Committing ranges takes {share:.1%} of rows/s; below zero is noise."


def json_line(results: Mapping[str, Result]) -> str:
    """JSON object with the worker's figures and the ratios; without a run, a figure is null and a ratio is left out."""
    worker = results.get(WORKER.name)
    return orjson.dumps(
        {
            "rows_per_s": worker and round(worker.rows_per_s),
            "cpu_us_per_row": worker and _rounded(worker.cpu_us_per_row, 2),
            "rss_mb": worker and _rounded(worker.rss_mb, 1),
            "ratio": ratios(results),
        }
    ).decode()


def rich_table(results: Mapping[str, Result]) -> Table:
    """Table for the terminal."""
    table = Table()
    for number, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
    for cells in _cells(results):
        table.add_row(*cells)
    return table


def markdown(results: Mapping[str, Result], machine: str, command: str) -> str:
    """Text for the docs: the machine, the command and the table."""
    lines = [machine, "", f"`{command}`", ""]
    lines += [f"| {' | '.join(_HEADINGS)} |", "|---" + "|---:" * (len(_HEADINGS) - 1) + "|"]
    lines += [f"| {' | '.join(cells)} |" for cells in _cells(results)]
    if cost := cost_of_ranges(results):
        lines += ["", cost]
    return "\n".join(lines)


def replace_marked(document: str, text: str, markers: tuple[str, str] = (BEGIN, END)) -> str:
    """Return the document with new text between its markers.

    Raises:
        ConfigError: the document doesn't have both markers in order.
    """
    before, begin, rest = document.partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not begin or not end:
        raise ConfigError(f"docs/benchmarks.md: expected the lines {markers[0]} and {markers[1]}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def machine(clickhouse_version: str, *, besides: str = "") -> str:
    """Paragraph about the machine and the versions; `besides` is added at the end."""
    versions = [f"{name} {version(name)}" for name in _LIBRARIES]
    memory = psutil.virtual_memory().total / 2**30
    text = (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores ({_cpu_model()}), {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"ClickHouse {clickhouse_version}, Kafka {KAFKA_VERSION}, {', '.join(versions)}{besides}."
    )
    return fill(text, _LINE_WIDTH, break_on_hyphens=False)


def peers() -> str:
    """Pinned packages of the peers that have their own environment, as the end of a sentence."""
    pins = [line for line in PEER_REQUIREMENTS.read_text(encoding="utf-8").splitlines() if "==" in line]
    return f"; Quix Streams and Bytewax with {', '.join(pins).replace('==', ' ')}"


def _cells(results: Mapping[str, Result]) -> list[tuple[str, ...]]:
    ratio = ratios(results)
    return [
        (
            _TITLES[name],
            f"{result.rows_per_s:,.0f}",
            f"{ratio[name]:.1f} x" if name in ratio else "",
            _number(result.cpu_us_per_row),
            f"{result.server_cpu_us_per_row:.1f}",
            _number(result.rss_mb),
            f"{result.total_seconds:.1f}",
        )
        for name, result in results.items()
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
