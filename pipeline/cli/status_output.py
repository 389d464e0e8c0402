"""The model as text: one screen that fits into the terminal, for `chimera status` and `chimera top`."""

from collections.abc import Iterator, Mapping, Sequence

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
_TITLES = ("", "family", "in/s", "out/s", "waiting", "oldest", "letters", "rows", "stored", "last hour")
_LEFT = frozenset({"", "family", "last hour"})
_BY_WORTH = ("", "family", "waiting", "oldest", "stored", "letters", "rows", "out/s", "in/s", "last hour")
"""Columns in the order in which a terminal that grows gets them."""
_LEAST_COLUMNS = 3
_PADDING = 2  # between two columns


def screen(state: PipelineState, width: int, *, bars: int = 0) -> RenderableType:
    """Return the model as text.

    Args:
        state: the model.
        width: columns of the terminal; a narrow one has fewer columns of the table, and whole ones.
        bars: number of bars of the last hour's rate to show by family; 0 for none.
    """
    return Group(*_headline(state), Text(), _families(state, width, bars), Text(), *_foot(state))


def _headline(state: PipelineState) -> Iterator[RenderableType]:
    yield Text(f"{_MARKS[state.verdict]} {state.summary}", style=f"bold {_COLOURS[state.verdict]}")
    for trouble in state.troubles:
        since = duration((state.at - trouble.since).total_seconds())
        where = "" if trouble.text.startswith(trouble.where) else f"{trouble.where}: "
        colour = _COLOURS[trouble.severity]
        yield Text(f"{_MARKS[trouble.severity]} {where}{trouble.text} (for {since})", style=colour)
        yield Text(f"  {trouble.action} Runbook: {trouble.id}", style="dim")


def _families(state: PipelineState, width: int, bars: int) -> Table:
    rows = [_row(state, family, bars) for family in state.families]
    titles = [title for title in _BY_WORTH if title != "last hour" or bars]
    while len(titles) > _LEAST_COLUMNS and sum(_width(title, rows) for title in titles) - _PADDING > width:
        titles.pop()
    table = Table(box=None, padding=(0, 1), pad_edge=False, show_edge=False)
    shown = [title for title in _TITLES if title in titles]
    for title in shown:
        table.add_column(title, justify="left" if title in _LEFT else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[title] for title in shown))
    return table


def _width(title: str, rows: Sequence[Mapping[str, Text]]) -> int:
    return max(len(title), *(row[title].cell_len for row in rows)) + _PADDING


def _row(state: PipelineState, family: FamilyState, bars: int) -> dict[str, Text]:
    """Return the cells of a family by title."""
    table = next((each for each in state.tables if each.name == family.table), None)
    stored = None if table is None or table.newest_stored is None else (state.at - table.newest_stored).total_seconds()
    verdict = _verdict(state, family)
    cells = {
        "family": family.name,
        "in/s": _number(family.produced_per_second),
        "out/s": _number(family.consumed_per_second),
        "waiting": "no topic" if family.missing else _number(family.lag_records),
        "oldest": _UNKNOWN if family.lag_seconds is None else duration(family.lag_seconds),
        "letters": _number(family.dead_letters.unsettled),
        "rows": "no table" if table and table.missing else _number(table.rows if table else None),
        "stored": _UNKNOWN if stored is None else duration(max(0.0, stored)),
        "last hour": _bars(state.history.consumed_per_second.get(family.name, ()), bars) if bars else "",
    }
    return {"": Text(_MARKS[verdict], style=_COLOURS[verdict]), **{title: Text(cell) for title, cell in cells.items()}}


def _foot(state: PipelineState) -> Iterator[RenderableType]:
    members = len(state.group.members)
    waiting = [member for member in state.group.members if member.ready is False]
    unready = f", {len(waiting)} not ready" if waiting else ""
    yield Text(f"group {state.group.id}: {state.group.state}, {members} worker{'' if members == 1 else 's'}{unready}")
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
    if waiting:
        yield Text(f"worker {waiting[0].id}: {waiting[0].says}", style="yellow")
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
