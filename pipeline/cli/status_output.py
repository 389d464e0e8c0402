"""The model as text: one screen of at most 80 columns, for `chimera status` and `chimera top`."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.operations.monitor.state import Consumption, FamilyState, Health, PipelineState
from pipeline.operations.monitor.troubles import duration

_COLOURS = {Health.OK: "green", Health.WARNING: "yellow", Health.CRITICAL: "red", Health.UNKNOWN: "dim"}
_MARKS = {Health.OK: "✓", Health.WARNING: "!", Health.CRITICAL: "✗", Health.UNKNOWN: "?"}
_OF_CONSUMPTION = {
    Consumption.OK: Health.OK,
    Consumption.WARNING: Health.WARNING,
    Consumption.UNKNOWN: Health.UNKNOWN,
}
_BARS = "▁▂▃▄▅▆▇█"
_UNKNOWN = "-"


def screen(state: PipelineState, *, bars: int = 0) -> RenderableType:
    """Return the model as text.

    Args:
        state: the model.
        bars: number of bars of the last hour's rate to show by family; 0 for none.
    """
    return Group(*_headline(state), Text(), _families(state, bars), Text(), *_foot(state))


def _headline(state: PipelineState) -> Iterator[RenderableType]:
    yield Text(f"{_MARKS[state.verdict]} {state.summary}", style=f"bold {_COLOURS[state.verdict]}")
    for trouble in state.troubles:
        since = duration((state.at - trouble.since).total_seconds())
        where = "" if trouble.text.startswith(trouble.where) else f"{trouble.where}: "
        colour = _COLOURS[trouble.severity]
        yield Text(f"{_MARKS[trouble.severity]} {where}{trouble.text} (for {since})", style=colour)
        yield Text(f"  {trouble.action} Runbook: {trouble.id}", style="dim")


def _families(state: PipelineState, bars: int) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column("")
    table.add_column("family")
    for title in ("in/s", "out/s", "waiting", "oldest", "letters", "rows", "stored"):
        table.add_column(title, justify="right", no_wrap=True)
    if bars:
        table.add_column("last hour", no_wrap=True)
    stored = {each.name: each for each in state.tables}
    for family in state.families:
        rows = stored.get(family.table)
        ago = None if rows is None or rows.newest_stored is None else (state.at - rows.newest_stored).total_seconds()
        verdict = _verdict(state, family)
        table.add_row(
            Text(_MARKS[verdict], style=_COLOURS[verdict]),
            family.name,
            _number(family.produced_per_second),
            _number(family.consumed_per_second),
            "no topic" if family.missing else _number(family.lag_records),
            _UNKNOWN if family.lag_seconds is None else duration(family.lag_seconds),
            _number(family.dead_letters.unsettled),
            "no table" if rows and rows.missing else _number(rows.rows if rows else None),
            _UNKNOWN if ago is None else duration(max(0.0, ago)),
            *([_bars(state.history.consumed_per_second.get(family.name, ()), bars)] if bars else []),
        )
    return table


def _foot(state: PipelineState) -> Iterator[RenderableType]:
    members = len(state.group.members)
    yield Text(f"group {state.group.id}: {state.group.state}, {members} worker{'' if members == 1 else 's'}")
    for name, server in (("Kafka", state.kafka), ("ClickHouse", state.clickhouse)):
        version = f", {state.storage.version}" if name == "ClickHouse" and state.storage.version else ""
        word = {Health.OK: "answers", Health.UNKNOWN: "not asked yet"}.get(server.verdict, "is away")
        since = (
            ""
            if server.verdict is not Health.CRITICAL or server.since is None
            else f" since {server.since:%H:%M:%S} UTC"
        )
        yield Text(f"{name} {server.address} {word}{since}{version}", style="" if word == "answers" else "red")
    yield _backup(state)
    if state.rollup is not None and state.rollup.open_windows is not None:
        newest = f"; newest hour {state.rollup.newest_hour:%Y-%m-%d %H:%M} UTC" if state.rollup.newest_hour else ""
        yield Text(f"session_stats: {state.rollup.open_windows:,} open windows{newest}")


def _backup(state: PipelineState) -> Text:
    backup = state.backup
    said = "none yet"
    if backup.looked_at is None:
        said = "not asked yet"
    elif backup.reason is not None:
        said = "not known"
    elif backup.age_seconds is not None:
        said = f"{duration(backup.age_seconds)} ago"
    failed = "; the last attempt has failed" if backup.last_failed else ""
    return Text(f"last backup: {said}{failed}", style="yellow" if backup.verdict is Health.WARNING else "")


def _verdict(state: PipelineState, family: FamilyState) -> Health:
    if state.kafka.verdict is not Health.OK:
        return Health.UNKNOWN
    critical = any(each.where == family.name and each.severity is Health.CRITICAL for each in state.troubles)
    return Health.CRITICAL if critical else _OF_CONSUMPTION.get(family.consumption, Health.CRITICAL)


def _number(value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if abs(value) >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.1f}" if 0 < value < 10 and value != int(value) else f"{value:,.0f}"


def _bars(values: tuple[float | None, ...], width: int) -> str:
    """Draw the last hour; each bar is the greatest rate of its steps."""
    if not values:
        return ""
    step = max(1, -(-len(values) // width))
    groups = [values[start : start + step] for start in range(0, len(values), step)]
    highest = [max((value for value in group if value is not None), default=None) for group in groups]
    top = max((value for value in highest if value), default=0) or 1
    return "".join(" " if value is None else _BARS[min(7, int(value / top * 7.99))] for value in highest)
