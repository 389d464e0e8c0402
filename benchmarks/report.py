"""Report of a run: tables for the terminal and for docs/benchmarks.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten

from rich.table import Table

from benchmarks import asked
from benchmarks.cases import CASES
from benchmarks.contenders import CONTENDERS, WITHOUT_RANGES, WORKER
from benchmarks.figures import Figures, case_cpu, cpu_us, ratios, rows_per_s, server_us
from benchmarks.results import Figure, Runs
from benchmarks.runtimes import PEER_REQUIREMENTS
from pipeline.errors import ConfigError

BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"

_FAILURE_WIDTH = 400
_TITLES = {contender.name: contender.title for contender in CONTENDERS}
_CASE_TITLES = {case.name: case.title for case in CASES}


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table; all cells but a row's first are numbers, aligned right."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def rich(self) -> Table:
        """Table for the terminal."""
        table = Table(title=self.title, title_justify="left")
        for number, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if number else "left")
        for cells in self.rows:
            table.add_row(*cells)
        return table

    def markdown(self) -> list[str]:
        """Lines for the docs."""
        lines = [f"### {self.title}", "", f"| {' | '.join(self.headings)} |"]
        lines += ["|---" + "|---:" * (len(self.headings) - 1) + "|"]
        return [*lines, *(f"| {' | '.join(cells)} |" for cells in self.rows), ""]


def sheets(figures: Figures) -> list[Sheet]:
    """All tables; one of a part that didn't run is left out."""
    found = [Sheet("Asked and measured", ("", "before", "asked", "measured"), asked.rows(figures))]
    found += [_comparison(f"{events:,} events", runs) for events, runs in sorted(figures.quiet.items())]
    found += [
        _comparison(f"{events:,} events, two busy processes beside", runs)
        for events, runs in sorted(figures.busy.items())
    ]
    if figures.worst:
        found.append(_worst(figures))
    if figures.latency:
        found += [_latency(figures), _parts(figures)]
    if figures.memory:
        found.append(_memory(figures))
    return found


def remarks(figures: Figures) -> list[str]:
    """Sentences about the run: what was skipped or failed, and the load of the machine."""
    lines = [f"{_TITLES[name]}: skipped, {reason}." for name, reason in figures.skipped.items()]
    lines += [f"Failed: {shorten(failure, _FAILURE_WIDTH, placeholder=' …')}" for failure in figures.failures]
    lines += [cost for runs in figures.quiet.values() if (cost := cost_of_ranges(runs))]
    if figures.loads:
        lines.append(
            f"Load average before the runs: {min(figures.loads):.1f} to {max(figures.loads):.1f}; processes beside the "
            f"benchmark used {min(figures.others):.2f} to {max(figures.others):.2f} cores, the busy ones not counted."
            if figures.others
            else f"Load average before the runs: {min(figures.loads):.1f} to {max(figures.loads):.1f}."
        )
    return lines


def markdown(figures: Figures, machine: str, command: str) -> str:
    """Text for the docs: the machine, the command and the tables."""
    lines = [machine, "", f"`{command}`", ""]
    for remark in remarks(figures):
        lines += [remark, ""]
    for sheet in sheets(figures):
        lines += sheet.markdown()
    return "\n".join(lines).rstrip()


def cost_of_ranges(runs: Mapping[str, Runs]) -> str | None:
    """Sentence with the cost of committed ranges in throughput; None if one of the two contenders didn't run."""
    if not {WORKER.name, WITHOUT_RANGES.name} <= runs.keys():
        return None
    share = 1 - runs[WORKER.name].rows_per_s / runs[WITHOUT_RANGES.name].rows_per_s
    return f"Committing ranges takes {share:.1%} of rows/s; below zero is noise."


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


def peers() -> str:
    """Pinned packages of the peers that have their own environment, as the end of a sentence."""
    pins = [line for line in PEER_REQUIREMENTS.read_text(encoding="utf-8").splitlines() if "==" in line]
    return f"; Quix Streams and Bytewax with {', '.join(pins).replace('==', ' ')}"


def _comparison(title: str, runs: Mapping[str, Runs]) -> Sheet:
    ratio = ratios(runs)
    rows = [
        (
            _TITLES[name],
            _spread(each, rows_per_s, ",.0f"),
            f"{ratio[name]:.2f} x" if name in ratio else "",
            _spread(each, cpu_us, ".2f"),
            _spread(each, server_us, ".2f"),
            _number(each.rss_mb, ".0f"),
            f"{each.total_seconds:.1f}",
        )
        for name, each in runs.items()
    ]
    return Sheet(title, ("", "rows/s", "ratio", "CPU µs", "server µs", "RSS MB", "total s"), rows)


def _worst(figures: Figures) -> Sheet:
    rows = []
    for name, title in _CASE_TITLES.items():
        if (runs := figures.worst.get(name)) is None:
            rows.append((title, "failed", *["-"] * 4))
            continue
        cpu = case_cpu(figures.worst, name)
        rows.append(
            (
                title,
                _spread(runs, rows_per_s, ",.0f"),
                _spread(runs, cpu_us, ".2f"),
                f"{cpu.median:.2f}" if cpu else "-",
                _spread(runs, server_us, ".2f"),
                _number(runs.rss_mb, ".0f"),
            )
        )
    events = next((runs.results[0].rows for runs in figures.worst.values() if runs.results), 0)
    headings = ("", "rows/s", "CPU µs", "÷ sample's", "server µs", "RSS MB")
    return Sheet(f"Worst cases, {events:,} events", headings, rows)


def _latency(figures: Figures) -> Sheet:
    rows = [
        (
            each.pace.name,
            f"{each.pace.rate:,}",
            *(f"{value:,.0f}" for value in (each.p50_ms, each.p99_ms, each.max_ms)),
            f"{each.cores * 100:.0f} %",
            f"{each.server_cores * 100:.0f} %",
            f"{each.kept * 100:.1f} %",
        )
        for each in figures.latency
    ]
    headings = ("rate and linger", "events/s", "p50 ms", "p99 ms", "max ms", "CPU of a core", "server's", "rate kept")
    return Sheet("Latency, produce to visible", headings, rows)


def _parts(figures: Figures) -> Sheet:
    rows = [
        (
            each.pace.name,
            f"{each.parts_per_minute:,.0f}",
            f"{each.pace.rate * each.kept * 60 / each.parts_per_minute:,.0f}" if each.parts_per_minute else "-",
            f"{each.stats_parts_per_minute:,.0f}",
        )
        for each in figures.latency
    ]
    return Sheet("Parts per minute", ("rate and linger", "ui_events", "rows in one", "session_stats"), rows)


def _memory(figures: Figures) -> Sheet:
    rows = [
        (name, _number(each.rss_mb, ".0f"), _number(each.later_rss_mb, ".0f")) for name, each in figures.memory.items()
    ]
    return Sheet("Memory", ("workload, events", "peak MB", "a while later MB"), rows)


def _spread(runs: Runs, figure: Figure, form: str) -> str:
    """Median and range, or only the value of a single round."""
    spread = runs.spread(figure)
    if spread is None:
        return "-"
    middle = format(spread.median, form)
    if len(runs.results) == 1:
        return middle
    return f"{middle} ({format(spread.least, form)} to {format(spread.greatest, form)})"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
